#include "insight/pickle.h"

#include <cstring>
#include <deque>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {
namespace {

struct Value;
using Ref = Value*;  // owned by the machine: cycles then cost nothing
struct List {
  std::vector<Ref> items;
};
struct Dict {
  std::vector<std::pair<Ref, Ref>> items;
};
struct Value {
  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, List, Dict> data =
      nullptr;
};

class Machine {
 public:
  Machine(std::string_view bytes, std::string_view origin, const PickleLimits& limits)
      : bytes_(bytes), origin_(origin), limits_(limits) {}

  Json run() {
    for (;;) {
      at_op_ = at_;
      const auto op = static_cast<unsigned char>(take(1)[0]);
      if (op == '.') break;
      step(op);
    }
    if (stack_.empty()) broken("the stack is empty at the end");
    return to_json(*stack_.back(), 0);
  }

 private:
  template <class... Parts>
  [[noreturn]] void broken(const Parts&... parts) const {
    fail<DataError>(origin_, ": byte ", at_op_, ": ", parts...);
  }

  std::string_view take(uint64_t n) {
    if (n > bytes_.size() - at_) broken("the file ends in the middle of a value");
    const auto out = bytes_.substr(at_, n);
    at_ += n;
    return out;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  template <class T>
  void push(T&& data) {
    if (++made_ > limits_.values) broken("more than ", limits_.values, " values");
    values_.emplace_back();
    values_.back().data = std::forward<T>(data);
    stack_.push_back(&values_.back());
  }
  Ref pop() {
    if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back()))
      broken("the stack is empty");
    Ref value = stack_.back();
    stack_.pop_back();
    return value;
  }
  Value& top() {
    if (stack_.empty()) broken("the stack is empty");
    return *stack_.back();
  }
  /// What lies above the last mark, which is removed.
  std::vector<Ref> pop_mark() {
    if (marks_.empty()) broken("no mark");
    std::vector<Ref> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                           stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }

  void text(uint64_t n) { push(valid_utf8(take(n))); }
  void raw(uint64_t n) { push(valid_utf8(take(n))); }

  void long_number(uint64_t n) {
    const auto digits = take(n);
    if (n > 9 || (n == 9 && digits[8] != 0))
      broken("an integer of ", n, " bytes; at most 8 are allowed");
    uint64_t value = 0;
    for (size_t i = 0; i < n && i < 8; ++i)
      value |= uint64_t{static_cast<unsigned char>(digits[i])} << (8 * i);
    if (n == 9)
      push(value);
    else if (n > 0 && n < 8 && (digits[n - 1] & 0x80))
      push(static_cast<int64_t>(value | (~uint64_t{0} << (8 * n))));
    else
      push(static_cast<int64_t>(value));
  }

  void tuple(size_t n) {
    List list;
    list.items.resize(n);
    for (size_t i = n; i-- > 0;) list.items[i] = pop();
    push(std::move(list));
  }

  void set_items(std::vector<Ref> items) {
    auto* dict = std::get_if<Dict>(&top().data);
    if (!dict || items.size() % 2) broken("items for something that is not a dict");
    for (size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
  }
  void append(std::vector<Ref> items) {
    auto* list = std::get_if<List>(&top().data);
    if (!list) broken("items for something that is not a list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void put(uint64_t key) {
    if (stack_.empty()) broken("the stack is empty");
    if (memo_.size() > limits_.values) broken("too many memoised values");
    memo_[key] = stack_.back();
  }
  void get(uint64_t key) {
    const auto at = memo_.find(key);
    if (at == memo_.end()) broken("value ", key, " was never stored");
    stack_.push_back(at->second);
  }

  void step(unsigned char op) {
    switch (op) {
      case 0x80: {
        const int protocol = number<uint8_t>();
        if (protocol > 5) broken("protocol ", protocol, "; at most 5 is known");
        return;
      }
      case 0x95:
        take(8);
        return;  // FRAME
      case '(':
        marks_.push_back(stack_.size());
        return;
      case '0':
        pop();
        return;
      case '1':
        pop_mark();
        return;
      case '2':
        stack_.push_back(&top());
        return;
      case '}':
        push(Dict());
        return;
      case ']':
        push(List());
        return;
      case ')':
        push(List());
        return;
      case 'd': {
        auto items = pop_mark();
        push(Dict());
        return set_items(std::move(items));
      }
      case 'l':
      case 't': {
        auto items = pop_mark();
        push(List{std::move(items)});
        return;
      }
      case 0x85:
        return tuple(1);
      case 0x86:
        return tuple(2);
      case 0x87:
        return tuple(3);
      case 's': {
        auto value = pop(), key = pop();
        return set_items({key, value});
      }
      case 'u':
        return set_items(pop_mark());
      case 'a': {
        auto value = pop();
        return append({value});
      }
      case 'e':
        return append(pop_mark());
      case 'J':
        push(int64_t{number<int32_t>()});
        return;
      case 'K':
        push(int64_t{number<uint8_t>()});
        return;
      case 'M':
        push(int64_t{number<uint16_t>()});
        return;
      case 0x8a:
        return long_number(number<uint8_t>());
      case 0x8b:
        return long_number(number<uint32_t>());
      case 'G': {
        uint64_t bits = __builtin_bswap64(number<uint64_t>());
        double value;
        std::memcpy(&value, &bits, sizeof value);
        push(value);
        return;
      }
      case 'N':
        push(nullptr);
        return;
      case 0x88:
        push(true);
        return;
      case 0x89:
        push(false);
        return;
      case 'X':
        return text(number<uint32_t>());
      case 0x8c:
        return text(number<uint8_t>());
      case 0x8d:
        return text(number<uint64_t>());
      case 'B':
        return raw(number<uint32_t>());
      case 'C':
        return raw(number<uint8_t>());
      case 'h':
        return get(number<uint8_t>());
      case 'j':
        return get(number<uint32_t>());
      case 'q':
        return put(number<uint8_t>());
      case 'r':
        return put(number<uint32_t>());
      case 0x94:
        return put(memo_.size());
      default:
        broken("opcode ", fmt::format("0x{:02x}", op),
               " is not plain data; nothing of this file is executed");
    }
  }

  Json to_json(const Value& value, int depth) {
    if (depth > limits_.depth) broken("nested more than ", limits_.depth, " deep, or a cycle");
    if (++written_ > limits_.values) broken("more than ", limits_.values, " values");
    return std::visit([&](const auto& v) { return this->convert(v, depth); }, value.data);
  }
  Json convert(std::nullptr_t, int) { return nullptr; }
  template <class T>
  Json convert(const T& v, int)
    requires(std::is_arithmetic_v<T> || std::is_same_v<T, std::string>)
  {
    return v;
  }
  Json convert(const List& list, int depth) {
    Json out = Json::array();
    for (const auto& item : list.items) out.push_back(to_json(*item, depth + 1));
    return out;
  }
  Json convert(const Dict& dict, int depth) {
    Json out = Json::object();
    if (dict.items.size() > 100000)
      broken("a dict of ", dict.items.size(), " items; at most 100000 are allowed");
    for (const auto& [key, item] : dict.items) {
      const auto* text = std::get_if<std::string>(&key->data);
      auto name =
          text ? *text
               : to_json(*key, depth + 1).dump(-1, ' ', false, Json::error_handler_t::replace);
      // push_back: looking a key up walks the object.
      if (dict.items.size() < 64)
        out[std::move(name)] = to_json(*item, depth + 1);
      else
        out.push_back({std::move(name), to_json(*item, depth + 1)});
    }
    return out;
  }

  std::string_view bytes_, origin_;
  PickleLimits limits_;
  size_t at_ = 0, at_op_ = 0, made_ = 0, written_ = 0;
  std::deque<Value> values_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Ref> memo_;
};

}  // namespace

Json read_pickle(std::string_view bytes, std::string_view origin, const PickleLimits& limits) {
  return Machine(bytes, origin, limits).run();
}

}  // namespace triptych::insight

#include "profile/native_stacks.h"

#include <ATen/record_function.h>
#include <sys/syscall.h>
#include <torch/csrc/profiler/unwind/unwind.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "base/format.h"
#include "base/json.h"
#include "base/trace_scope.h"

namespace triptych {

namespace {

constexpr size_t kMostFrames = 32;
constexpr size_t kMostOperators = 200000;  // of one window: some 50 MB
// Kineto and we look at the clock one after the other; a thread may lose its core in between.
constexpr double kSameBeginUs = 50;

struct Begun final : at::ObserverContext {
  int64_t ns = trace_time_ns();
};

/// One table for operators and allocations: most stacks come again in every step.
struct Gathered {
  std::mutex mutex;
  NativeStacks all;
  std::map<std::vector<void*>, uint32_t> numbers;

  uint32_t number(std::vector<void*> frames) {
    const auto [at, added] =
        numbers.try_emplace(std::move(frames), static_cast<uint32_t>(all.stacks.size()));
    if (added) all.stacks.push_back(at->first);
    return at->second;
  }
};
Gathered& gathered() {
  static auto* all = new Gathered;  // backward's threads may outlive the end of main
  return *all;
}

at::CallbackHandle handle = 0;

std::unique_ptr<at::ObserverContext> begins(const at::RecordFunction& /*function*/) {
  return std::make_unique<Begun>();
}

void ends(const at::RecordFunction& function, at::ObserverContext* context) {
  const int64_t begin = static_cast<Begun*>(context)->ns, now = trace_time_ns();
  if (now - begin < kSlowOperatorNs) return;
  auto frames = torch::unwind::unwind();
  auto& self = gathered();
  const std::lock_guard lock(self.mutex);
  if (self.all.operators.size() < kMostOperators)
    self.all.operators.push_back(
        {function.name(), ::syscall(SYS_gettid), begin, now, self.number(std::move(frames))});
}

/// Names of addresses; of those that no symbol names the library and the place in it.
std::unordered_map<void*, std::string> names_of(const NativeStacks& all) {
  std::vector<void*> unique;
  for (const auto& frames : all.stacks) unique.insert(unique.end(), frames.begin(), frames.end());
  std::ranges::sort(unique);
  unique.erase(std::ranges::unique(unique).begin(), unique.end());
  if (unique.empty()) return {};
  const auto frames = torch::unwind::symbolize(unique, torch::unwind::Mode::dladdr);
  std::unordered_map<void*, std::string> names;
  for (size_t i = 0; i < unique.size() && i < frames.size(); ++i) {
    auto name = frames[i].funcname;
    if (name.empty() || name.starts_with("??")) {
      const auto place = torch::unwind::libraryFor(unique[i]);
      name = place ? fmt::format("{}+{:#x}", place->first.substr(place->first.rfind('/') + 1),
                                 place->second)
                   : "?";
    }
    std::ranges::replace(name, ';', ',');
    constexpr size_t kLongest = 200;
    if (name.size() > kLongest) name = name.substr(0, kLongest) + "...";
    names.emplace(unique[i], std::move(name));
  }
  return names;
}

/// Where the observer ends and the stack begins. Below an operator's end is RecordFunction, below
/// an allocation nothing but our own books, which are in this program.
size_t first_frame(const std::vector<std::string_view>& names, std::string_view program) {
  for (size_t i = names.size(); i-- > 0;)
    if (names[i].find("RecordFunction") != std::string_view::npos) return i + 1;
  size_t first = 0;
  while (first < names.size() &&
         (names[first].starts_with("torch::unwind") || names[first].starts_with("triptych::") ||
          names[first].starts_with(program)))
    ++first;
  return first;
}

/// The number behind `label` within `text`.
template <class Number>
std::optional<Number> number_after(std::string_view text, std::string_view label) {
  const size_t at = text.find(label);
  if (at == std::string_view::npos) return std::nullopt;
  Number value{};
  const char* begin = text.data() + at + label.size();
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

/// Slow operators by thread and name, in the order of their begins.
class Waiting {
 public:
  explicit Waiting(const std::vector<SlowOperator>& operators, int64_t base_ns) {
    for (const auto& op : operators)
      lists_[{op.thread, op.name}].push_back(
          {static_cast<double>(op.begin_ns - base_ns) / 1000, &op, false});
    for (auto& [key, list] : lists_) std::ranges::sort(list, {}, &Entry::begin_us);
  }

  /// The one that begins nearest to this time and ends with it; each is given away once.
  const SlowOperator* take(int64_t thread, std::string_view name, double begin_us, double dur_us) {
    const auto list = lists_.find({thread, std::string(name)});
    if (list == lists_.end() || dur_us * 1000 < kSlowOperatorNs - kSameBeginUs * 1000)
      return nullptr;
    Entry* best = nullptr;
    const auto first =
        std::ranges::lower_bound(list->second, begin_us - kSameBeginUs, {}, &Entry::begin_us);
    for (auto e = first; e != list->second.end() && e->begin_us <= begin_us + kSameBeginUs; ++e) {
      const double length = static_cast<double>(e->op->end_ns - e->op->begin_ns) / 1000;
      if (e->taken || std::abs(length - dur_us) > 2 * kSameBeginUs) continue;
      if (best == nullptr || std::abs(e->begin_us - begin_us) < std::abs(best->begin_us - begin_us))
        best = &*e;
    }
    if (best == nullptr) return nullptr;
    best->taken = true;
    return best->op;
  }

 private:
  struct Entry {
    double begin_us;
    const SlowOperator* op;
    bool taken;
  };
  std::map<std::pair<int64_t, std::string>, std::vector<Entry>> lists_;
};

}  // namespace

void start_native_stacks() {
  {
    const std::lock_guard lock(gathered().mutex);
    gathered().all = {.operators = {}, .stacks = {{}}};
    gathered().numbers.clear();
  }
  handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(begins, ends)
          .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
}

NativeStacks stop_native_stacks() {
  at::removeCallback(std::exchange(handle, 0));
  const std::lock_guard lock(gathered().mutex);
  gathered().numbers.clear();
  return std::exchange(gathered().all, {.operators = {}, .stacks = {{}}});
}

uint32_t stack_of_allocation(int64_t bytes) {
  if (bytes < kLargeAllocation) return 0;
  auto frames = torch::unwind::unwind();
  const std::lock_guard lock(gathered().mutex);
  return gathered().number(std::move(frames));
}

StackNames::StackNames(const NativeStacks& all) {
  const auto names = names_of(all);
  std::error_code unknown;
  const auto program =
      std::filesystem::read_symlink("/proc/self/exe", unknown).filename().string() + "+0x";
  for (const auto& frames : all.stacks) {
    std::vector<std::string_view> stack;
    for (void* frame : frames) stack.push_back(names.at(frame));
    const size_t first = first_frame(stack, program);
    std::string text;
    for (size_t i = first; i < stack.size() && i < first + kMostFrames; ++i)
      text.append(text.empty() ? "" : ";").append(stack[i]);
    json_.push_back(dump_json(Json(text)));
  }
}

const std::string& StackNames::json(uint32_t stack) const { return json_.at(stack); }

size_t put_with_stacks(std::string_view events, int64_t base_ns,
                       const std::vector<SlowOperator>& operators, const StackNames& names,
                       const std::function<void(std::string_view)>& put) {
  // Members stand in this order, on one line or each on its own.
  constexpr std::string_view kBegin = "\"cat\": \"cpu_op\"", kName = "\"name\": \"",
                             kArgs = "\"args\": {";
  if (operators.empty()) return put(events), 0;
  Waiting waiting(operators, base_ns);
  size_t put_until = 0, found = 0;
  for (size_t at = events.find(kBegin); at != std::string_view::npos;
       at = events.find(kBegin, at + 1)) {
    const size_t label = events.find(kName, at);
    if (label == std::string_view::npos) break;
    const size_t name = label + kName.size(), name_end = events.find('"', name);
    const size_t args = events.find(kArgs, name);
    if (name_end == std::string_view::npos || args == std::string_view::npos) break;
    const auto head = events.substr(name_end, args - name_end);
    const auto thread = number_after<int64_t>(head, "\"tid\": ");
    const auto begin = number_after<double>(head, "\"ts\": "),
               dur = number_after<double>(head, "\"dur\": ");
    const size_t inside = args + kArgs.size(), next = events.find_first_not_of(" \n", inside);
    if (!thread || !begin || !dur || next == std::string_view::npos || events[next] == '}')
      continue;
    const auto* op = waiting.take(*thread, events.substr(name, name_end - name), *begin, *dur);
    if (op == nullptr) continue;
    put(events.substr(put_until, inside - put_until));
    put("\n      \"Call stack\": " + names.json(op->stack) + ",");
    put_until = inside;
    ++found;
  }
  put(events.substr(put_until));
  return found;
}

}  // namespace triptych

#include "base/json.h"

#include <iterator>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/utf8.h"

namespace triptych {
namespace {

/// Reads characters and tells how far reading has come, which the library's callbacks do not.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** progress) : at_(at), progress_(progress) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    ++at_;
    *progress_ = at_;
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }
  bool operator!=(const Cursor& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** progress_;
};

/// Builds the document from the parser's events and refuses what the library would let pass.
class Builder : public Json::json_sax_t {
 public:
  Builder(std::string_view text, std::string_view origin, const JsonLimits& limits)
      : text_(text), origin_(origin), limits_(limits), at_(text.data()) {}

  const char** progress() { return &at_; }
  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // not in JSON text

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    if (has_key(level, name)) fail_here("key '", name, "' occurs twice in one object");
    if (!level.keys.empty()) level.keys.insert(name);
    level.key = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    // The library's text: "[json.exception.parse_error.101] parse error at line 1, column 2: ...".
    std::string_view words = error.what();
    for (const std::string_view end : {"] ", ": "}) {
      const bool is_prefix = words.starts_with('[') || words.starts_with("parse error at");
      const size_t found = words.find(end);
      if (is_prefix && found != std::string_view::npos) words.remove_prefix(found + end.size());
    }
    fail_at(position > 0 ? position - 1 : 0, "is not JSON: ", words);
  }

 private:
  struct Level {
    Json* value;
    std::string key;
    std::unordered_set<std::string> keys;  // filled once an object has more than kScan keys
  };
  static constexpr size_t kScan = 16;

  static bool has_key(Level& level, const std::string& name) {
    const auto& members = level.value->get_ref<const Json::object_t&>();
    if (members.size() < kScan) {
      for (const auto& member : members) {
        if (member.first == name) return true;
      }
      return false;
    }
    if (level.keys.empty()) {
      for (const auto& member : members) level.keys.insert(member.first);
    }
    return level.keys.contains(name);
  }

  Json* insert(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& level = levels_.back();
    if (level.value->is_array()) {
      auto& items = level.value->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    // Straight into the vector behind: the object's own insertion would search for the key again.
    auto& members = level.value->get_ref<Json::object_t&>();
    members.emplace_back(std::move(level.key), std::move(value));
    return &members.back().second;
  }

  template <class T>
  bool put(T&& value) {
    insert(Json(std::forward<T>(value)));
    return true;
  }

  bool open(Json value) {
    if (static_cast<int>(levels_.size()) >= limits_.depth) {
      fail_here("more than ", limits_.depth, " arrays and objects inside one another");
    }
    Json* place = insert(std::move(value));
    levels_.push_back({place, {}, {}});
    return true;
  }

  bool close() {
    levels_.pop_back();
    return true;
  }

  template <class... Parts>
  [[noreturn]] void fail_at(size_t offset, const Parts&... parts) const {
    const std::string_view before = text_.substr(0, std::min(offset, text_.size()));
    int64_t line = limits_.first_line;
    size_t start = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      if (before[i] == '\n') {
        ++line;
        start = i + 1;
      }
    }
    // What was read may be quoted, whatever it is; messages go into logs and JSON.
    fail<DataError>(escape_bad_utf8(
        detail::join_parts(origin_, ":", line, ":", before.size() - start + 1, ": ", parts...)));
  }
  template <class... Parts>
  [[noreturn]] void fail_here(const Parts&... parts) const {
    const auto offset = static_cast<size_t>(at_ - text_.data());
    fail_at(offset > 0 ? offset - 1 : 0, parts...);
  }

  std::string_view text_, origin_;
  JsonLimits limits_;
  const char* at_;
  Json root_;
  std::vector<Level> levels_;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits) {
  require<DataError>(text.size() <= limits.bytes, origin, ": has ", text.size(),
                     " bytes of JSON, at most ", limits.bytes, " are read");
  Builder builder(text, origin, limits);
  Json::sax_parse(Cursor(text.data(), builder.progress()),
                  Cursor(text.data() + text.size(), builder.progress()), &builder);
  return builder.take();
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  const MappedFile file(path);
  return parse_json(file.text(), path.string(), limits);
}

std::string dump_json(const Json& value, int indent) {
  try {
    return value.dump(indent);
  } catch (const Json::exception& error) {
    fail<DataError>("cannot be written as JSON: ", error.what());
  }
}

const Json& json_member(const Json& object, std::string_view key, std::string_view origin) {
  require<DataError>(object.is_object(), origin, ": is ", object.type_name(), ", an object with '",
                     key, "' is expected");
  const auto found = object.find(std::string(key));
  require<DataError>(found != object.end(), origin, ": '", key, "' is missing");
  return *found;
}

}  // namespace triptych

#include "data/record_errors.h"

#include <algorithm>

#include "base/error.h"

namespace triptych {
namespace {

/// A value in few words, for messages.
std::string shown(const Json* value) {
  if (value == nullptr) return "nothing";
  if (value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    if (text.empty()) return "an empty string";
    const auto begin = cut_text(text, 40);
    auto quoted = dump_json(Json(begin));  // escapes control characters
    return begin.size() < text.size() ? quoted + "..." : quoted;
  }
  if (value->is_null()) return "null";
  if (value->is_object()) return "an object";
  if (value->is_array()) return value->empty() ? "an empty list" : "a list";
  return dump_json(*value);
}

}  // namespace

std::string cut_text(const std::string& text, size_t bytes) {
  size_t end = std::min(text.size(), bytes);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return text.substr(0, end);
}

const Json* member(const Json& object, std::string_view key) {
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

void RecordErrors::bad(std::string_view field, const Json* found, std::string_view expected) const {
  bad_words(field, shown(found), expected);
}

void RecordErrors::bad_words(std::string_view field, std::string_view found,
                             std::string_view expected) const {
  fail<DataError>(origin_, ": ", field, field.empty() ? "" : ": ", "found ", found, "; expected ",
                  expected);
}

const std::string& RecordErrors::string_at(const Json* value, std::string_view field) const {
  if (value == nullptr || !value->is_string()) bad(field, value, "a string");
  return value->get_ref<const std::string&>();
}

}  // namespace triptych

#include "base/option_toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/format.h"

namespace triptych {
namespace {

constexpr size_t kLimitBytes = 16 << 20;

OptionValue convert(const toml::node& node) {
  OptionValue result;
  result.line = static_cast<int>(node.source().begin.line);
  if (const auto* table = node.as_table()) {
    OptionValue::Table items;
    for (const auto& [key, item] : *table) {
      items.emplace_back(std::string(key.str()), convert(item));
      // A value's own place may be unknown or later than its key's, which is what a reader wants.
      const int line = static_cast<int>(key.source().begin.line);
      if (line > 0) items.back().second.line = line;
    }
    // The library sorts by name; messages should come in the order of the file.
    std::ranges::stable_sort(items, {}, [](const auto& item) { return item.second.line; });
    result.value = std::move(items);
  } else if (const auto* array = node.as_array()) {
    OptionValue::List items;
    for (const toml::node& item : *array) items.push_back(convert(item));
    result.value = std::move(items);
  } else if (const auto* text = node.as_string()) {
    result.value = text->get();
  } else if (const auto* integer = node.as_integer()) {
    result.value = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    result.value = number->get();
  } else if (const auto* boolean = node.as_boolean()) {
    result.value = boolean->get();
  } else {
    result.value = OptionValue::Other{};
  }
  return result;
}

}  // namespace

OptionValue parse_toml(std::string_view text, std::string_view origin) {
  require<UsageError>(text.size() <= kLimitBytes, origin, ": has ", text.size(),
                      " bytes, a run file at most ", kLimitBytes);
  try {
    return convert(toml::parse(text, origin));
  } catch (const toml::parse_error& error) {
    std::string words(error.description());
    if (words.starts_with("Error while ")) words = words.substr(12);
    fail<UsageError>(origin, ":", error.source().begin.line, ":", error.source().begin.column,
                     ": is not TOML: ", words);
  }
}

OptionValue parse_toml_value(std::string_view text) {
  OptionValue document = parse_toml("v = " + std::string(text), "value");
  auto& items = std::get<OptionValue::Table>(document.value);
  require<UsageError>(items.size() == 1, "value: one value is expected");
  items[0].second.line = 0;
  return std::move(items[0].second);
}

}  // namespace triptych

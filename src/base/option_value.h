#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace triptych {

/// A value as it stands in a run file, before or after it is a C++ member.
struct OptionValue {
  using List = std::vector<OptionValue>;
  struct Entry;
  using Table = std::vector<Entry>;
  struct Unset {};  ///< an optional without a value
  struct Other {};  ///< TOML dates and times, which no option takes

  std::variant<Unset, bool, int64_t, double, std::string, List, Table, Other> value;
  int line = 0;  ///< in the file it came from; 0 when it did not come from one

  template <class T>
  const T* as() const {
    return std::get_if<T>(&value);
  }
  bool is_unset() const { return as<Unset>() != nullptr; }
};

/// A key of a table and what stands behind it.
struct OptionValue::Entry {
  std::string key;
  OptionValue value;
};

/// The least and greatest number allowed; for lists, of every element.
struct OptionRange {
  double least = -1e300, greatest = 1e300;
  bool without_least = false, without_greatest = false;  ///< the bound itself is out
};

/// What values an option takes.
struct OptionType {
  enum class Kind { kBool, kInteger, kNumber, kText, kPath, kChoice, kList, kEither };
  Kind kind = Kind::kText;
  std::vector<std::string> choices;  ///< kChoice
  std::vector<OptionType> items;     ///< kList: of one type; kEither: the alternatives in order
  size_t count = 0;                  ///< kList: how many; 0 = any number
  bool can_be_unset = false;
};

/// "integer", "fp32 | bf16", "list of strings", ...
std::string type_text(const OptionType& type);

/// "at least 1", "0 to 1", "above 0", or "" when everything goes.
std::string range_text(const OptionRange& range);

/// As TOML: 1e-05, "text", [1, 2].
std::string value_text(const OptionValue& value);

/// What is wrong with `value`, e.g. "= 0 is out of range; at least 1", or "" when nothing is.
std::string value_problem(const OptionType& type, const OptionRange& range,
                          const OptionValue& value);

/// True when a string is among what the type takes.
bool takes_text(const OptionType& type);

/// `text` as a TOML basic string with its quotes.
std::string toml_quoted(std::string_view text);

}  // namespace triptych

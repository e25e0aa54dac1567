#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/option_value.h"

namespace triptych {

struct TableSchema;

/// One row of a struct's fields(), with the C++ type behind functions. `object` is always the
/// struct that has the row.
struct OptionSchema {
  enum class Kind { kValue, kTable, kOptionalTable, kTableList };
  Kind kind = Kind::kValue;
  std::string name, help;

  // kValue
  OptionType type;
  OptionRange range;
  std::function<OptionValue(const void* object)> get;
  std::function<void(void* object, const OptionValue& checked)> set;

  // tables
  const TableSchema* table = nullptr;
  std::function<size_t(const void* object)> count;  ///< 1 for a table, 0 or 1 for an optional one
  std::function<const void*(const void* object, size_t index)> at;
  std::function<void*(void* object)>
      append;                               ///< the table itself; makes an optional; adds to a list
  std::function<void(void* object)> clear;  ///< a list or an optional: nothing left
};

/// The rows of one struct.
struct TableSchema {
  std::vector<OptionSchema> options;
  std::function<std::shared_ptr<void>()> make;  ///< a struct with its default values

  const OptionSchema* find(std::string_view name) const;
};

}  // namespace triptych

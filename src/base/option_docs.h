#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/option_schema.h"

namespace triptych {

/// One option as the reference shows it.
struct OptionDoc {
  std::string path;     ///< "train.steps"; inside a list of tables "data.train[].path"
  std::string section;  ///< "train", "data.train[]", "" for the top level
  std::string name, type, range, preset, help;  ///< preset: the default as TOML, "" when unset
  std::vector<std::string> choices;             ///< for completion
};

/// Every option, tables opened, in the order of declaration.
std::vector<OptionDoc> describe_options(const TableSchema& schema);

/// For a terminal: grouped by section; name, type, default, range, meaning.
std::string options_text(const TableSchema& schema);

/// A JSON Schema (2020-12) of the run file, for editors.
std::string options_json_schema(const TableSchema& schema, std::string_view title);

/// The reference page: a table per section.
std::string options_markdown(const TableSchema& schema);

}  // namespace triptych

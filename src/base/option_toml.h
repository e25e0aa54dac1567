#pragma once

#include <string_view>

#include "base/option_value.h"

namespace triptych {

/// Parses a TOML document into a table whose values carry their lines.
/// @throws UsageError "origin:line:column: ..." for wrong syntax and beyond 16 MiB.
OptionValue parse_toml(std::string_view text, std::string_view origin);

/// Parses one TOML value. @throws UsageError when `text` is anything else.
OptionValue parse_toml_value(std::string_view text);

}  // namespace triptych

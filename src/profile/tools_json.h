#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "train/run_options.h"

namespace triptych {

/// What a tools.json of MindSpeed-MM asks for, in our terms.
struct ToolsJson {
  ProfileOptions profile;             ///< windows count from 0 at the first step of the process
  std::vector<std::string> warnings;  ///< unknown keys, values that select nothing here
};

/// Keys, defaults and odd cases: docs/spec/profiling_and_insight.md, section 1.
/// @throws DataError with the JSON path for a wrong type or value; what a disabled part holds is
/// not
///   looked at.
ToolsJson read_tools_json(const Json& json, const std::string& origin);

}  // namespace triptych

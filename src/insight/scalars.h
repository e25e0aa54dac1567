#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace triptych::insight {

/// Curves of a run's metrics.jsonl:
/// {"tags":[...],"steps":{tag:[...]},"values":{tag:[...]},"bytes","warnings"}. NaN and infinity,
/// which the file holds as words, become null. A line that is being written is left for the next
/// reading. @param tags  only these; empty: all.
Json scalars_json(const std::filesystem::path& metrics, const std::vector<std::string>& tags);

}  // namespace triptych::insight

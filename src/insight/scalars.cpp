#include "insight/scalars.h"

#include <algorithm>
#include <map>

#include "base/files.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {

Json scalars_json(const std::filesystem::path& metrics, const std::vector<std::string>& tags) {
  const auto text = read_file(metrics, 1ull << 30);
  std::map<std::string, std::pair<Json, Json>> curves;
  int64_t damaged = 0;
  for (size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    if (end == std::string::npos) break;  // still being written
    const Json row = parse_tolerant(std::string_view(text).substr(at, end - at), 8);
    at = end + 1;
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number()) {
      ++damaged;
      continue;
    }
    for (const auto& [tag, value] : row.items()) {
      if (tag == "step" || (!tags.empty() && std::ranges::find(tags, tag) == tags.end())) continue;
      const bool word =
          value.is_string() && (value == "NaN" || value == "Infinity" || value == "-Infinity" ||
                                value == "nan" || value == "inf" || value == "-inf");
      if (!value.is_number() && !word) continue;
      auto& [steps, values] = curves[tag];
      if (steps.is_null()) steps = Json::array(), values = Json::array();
      steps.push_back(row["step"]);
      values.push_back(word ? Json(nullptr) : value);
    }
  }
  Json out{{"tags", Json::array()},
           {"steps", Json::object()},
           {"values", Json::object()},
           {"bytes", text.size()}};
  for (auto& [tag, curve] : curves) {
    out["tags"].push_back(tag);
    out["steps"][tag] = std::move(curve.first);
    out["values"][tag] = std::move(curve.second);
  }
  if (damaged > 0)
    out["warnings"] = {std::to_string(damaged) + " lines are no metrics and were left out"};
  if (curves.empty()) out["empty"] = "metrics.jsonl holds no rows yet";
  return out;
}

}  // namespace triptych::insight

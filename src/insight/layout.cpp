#include "insight/layout.h"

#include <algorithm>
#include <array>
#include <map>

#include "insight/communication.h"

namespace triptych::insight {
namespace {

constexpr const char* kAxes[] = {"tensor", "context", "data", "pipeline"};
constexpr const char* kShort[] = {"tp", "cp", "dp", "pp"};

int64_t size_in(const Json& parallel, int axis) {
  for (const char* key : {kAxes[axis], kShort[axis]})
    if (parallel.contains(key) && parallel[key].is_number_integer())
      return std::clamp<int64_t>(parallel[key].get<int64_t>(), 1, 1 << 20);
  return 1;
}

}  // namespace

Json layout_json(const Run& run, const CommCalls& calls) {
  const Json info = run.model_info();
  std::array<int64_t, 4> sizes = {1, 1, 1, 1};
  std::string source = "guess", order = "tp-cp-dp-pp";
  if (info.is_object() && info.contains("parallel") && info["parallel"].is_object()) {
    for (int axis = 0; axis < 4; ++axis)
      sizes[static_cast<size_t>(axis)] = size_in(info["parallel"], axis);
    if (info.contains("order") && info["order"].is_string())
      order = info["order"].get<std::string>();
    source = "header";
  } else {
    for (const auto& group : calls.groups)
      for (int axis = 0; axis < 4; ++axis)
        if (group.tag == kShort[axis])
          sizes[static_cast<size_t>(axis)] = std::max(sizes[static_cast<size_t>(axis)], group.size),
          source = "groups";
  }
  const int64_t world = run.world_size();
  int64_t product = sizes[0] * sizes[1] * sizes[2] * sizes[3];
  if (product < world && product > 0)
    sizes[2] *= (world + product - 1) / product;  // the rest is data parallel
  // Which axis varies fastest with the rank.
  std::vector<int> axes;
  for (size_t at = 0; at < order.size();
       at = order.find('-', at) == std::string::npos ? order.size() : order.find('-', at) + 1)
    for (int axis = 0; axis < 4; ++axis)
      if (order.compare(at, 2, kShort[axis]) == 0 && std::ranges::find(axes, axis) == axes.end())
        axes.push_back(axis);
  for (int axis = 0; axis < 4; ++axis)
    if (std::ranges::find(axes, axis) == axes.end()) axes.push_back(axis);
  const auto profiled = run.ranks();
  Json cells = Json::array();
  for (int64_t rank = 0; rank < std::min<int64_t>(world, 65536); ++rank) {
    Json cell{{"rank", rank}, {"profiled", std::ranges::find(profiled, rank) != profiled.end()}};
    int64_t rest = rank;
    for (const int axis : axes) {
      cell[kAxes[axis]] = rest % sizes[static_cast<size_t>(axis)];
      rest /= sizes[static_cast<size_t>(axis)];
    }
    cells.push_back(std::move(cell));
  }
  Json groups = Json::array();
  for (const auto& group : calls.groups)
    groups.push_back({{"tag", group.tag}, {"name", group_label(group)}, {"ranks", group.ranks}});
  Json out{{"order", order}, {"sizes", Json::object()},     {"cells", cells},
           {"rows", cells},  {"groups", std::move(groups)}, {"source", source}};
  for (int axis = 0; axis < 4; ++axis) out["sizes"][kAxes[axis]] = sizes[static_cast<size_t>(axis)];
  if (world == 0) out["empty"] = "no traces";
  return out;
}

}  // namespace triptych::insight

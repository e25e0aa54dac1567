#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

struct FlameQuery {
  bool modules = false;  ///< scopes of modules only; else all that the host did
  std::optional<std::pair<int64_t, int64_t>> range;  ///< [t0, t1) ns of the run; clips
  std::vector<uint32_t> tracks;                      ///< only these; none: all
  size_t limit = 4000;                               ///< nodes, the longest ones
};

/// Call stacks of the host added up by what they hold: one tree over the threads of `files`.
/// {"nodes":[{"name","parent","depth","calls","total_ns","self_ns","device_ns","first_id"}],
///  "total_ns","left_out"}; a parent stands before its children, -1 is none. Numbers of steps,
/// stages' micro-batches and the like are left out of names so that repetitions fall together.
/// device_ns is what was launched inside. Sums: total = self + totals of the children, where none
/// was left out.
Json flame_json(const Run& run, const std::vector<int>& files, std::optional<int64_t> step,
                const FlameQuery& query);

}  // namespace triptych::insight

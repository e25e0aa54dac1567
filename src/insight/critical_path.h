#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// One stretch of the critical path of a step.
struct PathPart {
  int file = 0;
  EventId event = kNone;             ///< kNone: a gap, or a delay between two events
  int64_t begin_ns = 0, end_ns = 0;  ///< of the trace
  enum Bound { kCpu, kCompute, kCommunication, kLaunch, kKernelKernel, kSync, kIdle } bound = kCpu;
};

/// Walks back from the end of the step: what had to end last before this could begin? On a device:
/// the kernel before on the stream, else the launching call; for a host call that waited for the
/// device, the kernel that ended last; on the host, the deepest record. The parts are without holes
/// and overlaps: their lengths add up to the step's.
std::vector<PathPart> critical_path(const Run& run, int file, int64_t step);

/// {"rank","step","length_ns","bounds":{"cpu_ns",...},"parts":[{"id","name","begin_ns","end_ns","bound"}],
///  "rows":[{"name","bound","total_ns","count"}], "what_if":[{"class","factor","length_ns"}]}
Json critical_path_json(const Run& run, int file, std::optional<int64_t> step);

}  // namespace triptych::insight

#pragma once

#include <cstdint>

#include "base/json.h"

namespace triptych::insight {

/// Memory over time and at its peak, from the blocks that a snapshot ends with and the events that
/// led there. Both documents have the form of memory_curve_json and memory_peak_json, with times
/// from the first event on; `module` is the first frame's name and `op` its file: in our own
/// snapshots the layer and the phase.
///   {"curve":{"points":[{"t","allocated","reserved"}],"categories":{name:[bytes...]},"peak"},
///    "peak":{"peak_ns","allocated","categories","layers":[{"module","bytes",<category>...}],
///            "rows":[{"category","module","op","bytes","count","share"}]}}
/// `reserved` is -1: a snapshot holds it only for its end.
Json snapshot_history(const Json& snapshot, int64_t points);

}  // namespace triptych::insight

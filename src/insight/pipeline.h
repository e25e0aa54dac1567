#pragma once

#include <optional>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// The chart of a pipelined step, measured against its schedule's theory; section 3.3. Actions are
/// the scopes "F|B|I|W stage s chunk v micro-batch m" of category `module` or user annotations.
///   {"step","stages":[{"stage","rank","busy_ns","bubble_ns","bubble_share","warmup_ns","steady_ns",
///    "cooldown_ns","gaps":[{"begin_ns","end_ns","cause":"previous stage late|link|own"}],
///    "actions":[{"kind","micro_batch","chunk","begin_ns","end_ns","id"}]}],
///    "pipe_ns","bubble_share","theory":{"schedule","bubble_share"},"excess",
///    "ideal":{"pipe_ns","bubble_share","stages":[{"stage","rank","actions"}]}}
/// theory: the formula of the schedule; ideal: these very actions in this order with their median
/// times, without links and noise; null when their order cannot be.
Json pipeline_json(const Run& run, int64_t span, std::optional<int64_t> step);

/// Bubble as a share of the total; v chunks per rank.
double theoretical_bubble(std::string_view schedule, int64_t stages, int64_t micro_batches,
                          int64_t chunks);

}  // namespace triptych::insight

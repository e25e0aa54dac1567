#pragma once

#include <cstdint>
#include <optional>

#include "insight/comm_calls.h"
#include "insight/step_times.h"

namespace triptych::insight {

// Where in the timeline a finding is to be seen: slice ids.

/// The scope of a step.
std::optional<uint64_t> place_of_step(const Run& run, const StepTimes& step);

/// The longest wait of a rank for its loader, within a step where one is given.
std::optional<uint64_t> place_of_loader_wait(const Run& run, int file,
                                             std::optional<int64_t> step = {});

/// The message from `src` to `dst` that took longest for its size; of a link that only collectives
/// use, the slowest collective with both.
std::optional<uint64_t> place_of_link(const CommCalls& calls, int64_t src, int64_t dst);

/// The call that one rank waited in for longest.
std::optional<uint64_t> place_of_wait(const CommCalls& calls);

}  // namespace triptych::insight

#pragma once

#include <vector>

#include "insight/findings.h"
#include "insight/per_rank.h"

namespace triptych::insight {

/// Ranks that compute more than their peers in nearly every step, and come late to the collectives
/// that they share with them. Compute alone may be noise of the machine, lateness alone another
/// cause. Where the run says how long its threads waited for a core (`core_wait_ns` of `mm`) and
/// that explains half the difference, `shares_core` of the evidence is true and the words say so.
/// @param step_ns  what a step takes
std::vector<Finding> slow_ranks(const Run& run, const CommCalls& calls, const PerRank& steps,
                                int64_t span, double step_ns);

}  // namespace triptych::insight

#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "parallel/group.h"
#include "plan/machine.h"

namespace triptych {

/// The line through measured points that is nearest in relative terms, so that short messages count
/// as much as long ones. Neither part of it is negative.
/// @param points  bytes that a rank sends, seconds of the call; at least two of unlike sizes
ExchangeRate fit_rate(const std::vector<std::pair<double, double>>& points);

/// All-reduce, all-gather, reduce-scatter and all-to-all over the group, each with tensors of three
/// sizes. All members call it; each gets its own times.
std::map<std::string, ExchangeRate> measure_exchanges(Group& group, at::Device device);

}  // namespace triptych

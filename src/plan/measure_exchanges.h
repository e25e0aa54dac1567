#pragma once

#include <c10/core/ScalarType.h>

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
/// sizes, between products as in a step. All members call it; each gets its own times.
/// @param dtype  of the products
std::map<std::string, ExchangeRate> measure_exchanges(Group& group, at::Device device,
                                                      at::ScalarType dtype);

}  // namespace triptych

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace triptych {

/// Which row of a step stands at each place, so that data ranks have as equal costs as a greedy
/// choice makes them: the dearest row first, each to the rank with the least so far that has a
/// place left (every rank has as many). A rank's own rows come in falling order of cost, so that
/// the ranks' n-th micro-batches, which may wait for each other, are alike as well. Ties go to the
/// lower row and rank: every rank finds the same.
///
/// @param costs  of the step's rows; their number is a multiple of ranks * micro_batch.
/// @return       for place g = (m * ranks + rank) * micro_batch + i: the row in row i of the
///   rank's micro-batch m.
std::vector<int64_t> balance_rows(std::span<const double> costs, int64_t ranks,
                                  int64_t micro_batch);

}  // namespace triptych

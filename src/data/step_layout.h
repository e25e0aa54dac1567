#pragma once

// Which rows of a step are this rank's, and where they stand in its micro-batches.

#include <cstdint>
#include <span>
#include <vector>

#include "data/loader.h"
#include "data/row_stream.h"

namespace triptych {

/// @throws UsageError unless global_batch is a multiple of micro_batch x data ranks
void check(const LoaderLayout& layout);

/// A row of this rank: row `in_micro_batch` of its micro-batch `micro_batch`.
struct RowPlace {
  int64_t micro_batch = 0, in_micro_batch = 0;
  size_t row = 0;      ///< of the step's rows
  bool blank = false;  ///< a filler of a last step that is not full: one sample without labels
};

/// In the order of the places.
/// @param rows  of the step; fewer than global_batch only in the last step of one pass
std::vector<RowPlace> lay_out(const LoaderLayout& layout, std::span<const PlannedRow> rows);

}  // namespace triptych

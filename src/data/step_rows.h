#pragma once

// What a run's first steps hold, without any pixel: rows as the loader packs them, in the order of
// its stream. The same in every layout; `share_of_rank` parts a step as the loader would.

#include <cstdint>
#include <span>
#include <vector>

#include "data/loader.h"

namespace triptych {

struct StepRows {
  std::vector<std::vector<Row>> steps;  ///< [step][row of the global batch]; media without rows
  int64_t samples = 0;                  ///< in them
  int64_t skipped = 0;                  ///< records left out (OnBadSample::kSkip)
};

/// Where reading ends; the first step is always whole.
struct StepRowsLimit {
  int64_t samples = 1024;  ///< with the step that reaches it
  int64_t steps = 0;       ///< of the run; 0: no limit. It also ends with the first epoch
};

/// Reads records and headers of media, decodes nothing.
/// @param options  of the run; what works ahead in it does not matter
/// @throws DataError for a bad sample with OnBadSample::kStop, as the step that needs it
StepRows read_step_rows(const Dataset& dataset, const Processor& processor, LoaderOptions options,
                        uint64_t seed, int64_t global_batch, const StepRowsLimit& limit);

/// What the loader of that layout hands out of a whole step: micro-batches of rank
/// `layout.data_rank`.
std::vector<MicroBatch> share_of_rank(const LoaderLayout& layout, std::span<const Row> step);

}  // namespace triptych

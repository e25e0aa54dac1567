#pragma once

// Tensor memory of a run: what belongs to which layer, how much each step took at most, and what
// would help when it does not fit.

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "kernels/memory_ledger.h"
#include "parallel/process_context.h"
#include "train/loaded_model.h"
#include "train/run_options.h"

namespace triptych {

/// Loads this rank's part of the model as load_part does; its values are in the books as
/// parameters of their layers.
LoadedModel load_counted(ProcessContext& process, const RunOptions& options, at::Device device);

/// Before the model is made: the books are this run's, also in the message of a failed allocation.
void open_memory_books(int64_t rank, const RunOptions& options, at::Device device);

/// The words for an error that means that memory ran out and does not say what held it: of a
/// device, or of what is no tensor. Empty for any other error.
std::string out_of_memory_words(const std::exception& error);

/// Settings that this run does not use yet, that this build supports, and that would take less of
/// what it holds most of; each with what it does. Most helpful first.
std::vector<std::string> memory_advice(const RunOptions& options, const MemoryTotals& totals);

/// The most tensor memory of one step.
struct StepMemory {
  MemoryTotals peak;           ///< of this rank
  std::vector<int64_t> ranks;  ///< peaks of all ranks
};

/// Between two calls lies a step: the peak since the last call, on every rank (where a device keeps
/// no books, since the start). All ranks call it.
StepMemory step_memory(ProcessContext& process, at::Device device);

/// "rank 0 1.25 GiB, rank 1 1.31 GiB"
std::string peaks_text(const std::vector<int64_t>& ranks);

}  // namespace triptych

#pragma once

#include <string>

#include "train/run_options.h"

namespace triptych {

/// What can be known of a run without reading weights: data, tokenizer, the rows of one
/// micro-batch, and the model against its files' headers. @return some lines for people. @throws as
/// train (train/trainer.h)
std::string check_run(const ResolvedRun& run);

/// Every file and folder that the run file names must be there, and `output` may be made.
/// @throws UsageError that lists all that are not
void check_inputs(const RunOptions& options);

}  // namespace triptych

#pragma once

#include <string>

#include "train/run_options.h"

namespace triptych {

/// What can be known of a run without reading weights: data, tokenizer, the rows of one
/// micro-batch, and the model against its files' headers. @return some lines for people. @throws as
/// train (train/trainer.h)
std::string check_run(const ResolvedRun& run);

}  // namespace triptych

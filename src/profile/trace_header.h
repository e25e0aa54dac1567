#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "parallel/process_context.h"
#include "profile/recorder.h"
#include "profile/window.h"
#include "train/run_options.h"
#include "train/step_observer.h"

namespace triptych {

/// What of a trace's header stays the same over a run: the object "mm", which the analyses read.
Json run_header(const ProcessContext& process, const RunOptions& options, const RunFacts& facts,
                const std::string& version);

/// distributedInfo as PyTorch writes it; groups are those that were used in the window.
Json distributed_info(const ProcessContext& process, const RunOptions& options,
                      const Records& records);

}  // namespace triptych

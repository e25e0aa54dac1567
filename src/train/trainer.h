#pragma once

// A run of supervised fine-tuning from its run file to `final/`.

#include <filesystem>
#include <string>

#include "base/signals.h"
#include "parallel/process_context.h"
#include "train/run_options.h"
#include "train/step_observer.h"

namespace triptych {

inline constexpr int kExitDone = 0, kExitStopped = 75;

/// Trains as the run file says; called by every rank. Everything it writes is described in
/// docs/spec/run_file.md.
/// @param overwrite  delete an earlier run in `output` first.
/// @param version    of the program, which all ranks must share.
/// @param signals    are told when the first step begins: from then on there is something to save.
/// @param observers  look on; the same kinds on every rank.
/// @return kExitDone, or kExitStopped when a signal or train.max_time_s ended it after a
/// checkpoint.
/// @throws UsageError, DataError, Error, PeerError
int train(ProcessContext& process, const ResolvedRun& run, bool overwrite,
          const std::string& version, SignalFlags& signals, const StepObservers& observers = {});

}  // namespace triptych

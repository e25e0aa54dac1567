#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/metrics.h"
#include "base/progress.h"
#include "base/tensorboard.h"
#include "train/memory_use.h"
#include "train/run_options.h"
#include "train/train_step.h"

namespace triptych {

/// What a finished step gave, besides StepReport.
struct StepTiming {
  int64_t step = 0;
  double lr = 0;
  double seconds = 0;       ///< from the end of the step before to the end of this one
  double data_seconds = 0;  ///< of them, waiting for the loader
  double epoch = 0;
  int64_t peak_memory_bytes = 0;
  int64_t memory_limit_bytes = 0;
  StepMemory memory;                ///< of tensors
  double peak_flop_per_second = 0;  ///< of all ranks together
  int64_t skipped = 0;              ///< updates left out so far
};

/// metrics.jsonl, event files and the progress display of rank 0. Other ranks make one that says
/// nothing.
class RunLog {
 public:
  /// @param first_step  steps that were done before; rows after it are taken out of metrics.jsonl.
  RunLog(const RunOptions& options, bool speaks, int64_t first_step, int64_t steps, int64_t world);

  void step_done(const StepReport& report, const StepTiming& timing);
  void validated(int64_t step, const LossSum& sum);
  void activity(const std::string& text);

 private:
  std::string unit_;
  int64_t steps_, world_, validated_before_ = -1;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<EventWriter> events_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace triptych

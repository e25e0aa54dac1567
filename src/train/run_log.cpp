#include "train/run_log.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace triptych {

RunLog::RunLog(const RunOptions& options, bool speaks, int64_t first_step, int64_t steps,
               int64_t world)
    : unit_(options.device == DeviceKind::kCpu ? "rank" : "device"), steps_(steps), world_(world) {
  if (!speaks) return;
  metrics_ = std::make_unique<MetricsFile>(options.output / "metrics.jsonl");
  metrics_->truncate_after_step(first_step);
  validated_before_ = metrics_->last_step_with("validation_loss");
  if (options.log.tensorboard)
    events_ = std::make_unique<EventWriter>(options.output / "tensorboard");
  progress_ = std::make_unique<Progress>(options.log.every, first_step);
}

namespace {

constexpr size_t kMostRanks = 64;  ///< that a row names one by one

/// Peaks of tensor memory: of this rank by kind, and of all ranks.
void add_memory(Json& row, const StepMemory& memory) {
  row["tensor_peak_bytes"] = memory.peak.bytes;
  for (size_t k = 0; k < kMemoryKinds; ++k) {
    if (memory.peak.by_kind[k] > 0)
      row[fmt::format("tensor_peak_{}_bytes", kMemoryKindNames[k])] = memory.peak.by_kind[k];
  }
  if (memory.ranks.size() < 2) return;
  const auto most = std::ranges::max_element(memory.ranks);
  row["tensor_peak_bytes_most"] = *most;
  row["tensor_peak_rank"] = most - memory.ranks.begin();
  for (size_t rank = 0; rank < memory.ranks.size() && rank < kMostRanks; ++rank)
    row[fmt::format("tensor_peak_bytes_rank_{}", rank)] = memory.ranks[rank];
}

}  // namespace

void RunLog::step_done(const StepReport& report, const StepTiming& timing) {
  if (!metrics_) return;
  const double tokens_per_second = static_cast<double>(report.input_tokens) / timing.seconds;
  const double mfu = report.flop / (timing.seconds * timing.peak_flop_per_second);
  Json row{{"step", timing.step},
           {"loss", report.loss},
           {"lr", timing.lr},
           {"grad_norm", report.norm},
           {"label_tokens", report.label_tokens},
           {"input_tokens", report.input_tokens},
           {"samples", report.samples},
           {"step_seconds", timing.seconds},
           {"tokens_per_second", tokens_per_second},
           {"mfu", mfu},
           {"peak_memory_bytes", timing.peak_memory_bytes},
           {"data_seconds", timing.data_seconds},
           {"epoch", timing.epoch},
           {"updated", report.updated}};
  add_memory(row, timing.memory);
  metrics_->write(row);
  log_debug("step {}: {}, {}, {} with a label; epoch {:.3f}; waited {:.1f} ms for data; {}",
            timing.step, counted(report.samples, "sample"), counted(report.input_tokens, "token"),
            report.label_tokens, timing.epoch, 1000 * timing.data_seconds,
            "tensor memory at most " + bytes_text(static_cast<double>(timing.memory.peak.bytes)));
  if (events_) {
    const std::array scalars = {
        std::pair<std::string, double>{"train/loss", report.loss},
        std::pair<std::string, double>{"train/lr", timing.lr},
        std::pair<std::string, double>{"train/grad_norm", report.norm},
        std::pair<std::string, double>{"train/epoch", timing.epoch},
        std::pair<std::string, double>{"speed/tokens_per_second", tokens_per_second},
        std::pair<std::string, double>{"speed/step_seconds", timing.seconds},
        std::pair<std::string, double>{"speed/data_seconds", timing.data_seconds},
        std::pair<std::string, double>{"speed/mfu", mfu},
        std::pair<std::string, double>{"memory/peak_bytes",
                                       static_cast<double>(timing.peak_memory_bytes)}};
    events_->write(timing.step, scalars);
  }
  ProgressReport line;
  line.step = timing.step;
  line.steps = steps_;
  line.loss = report.loss;
  line.lr = timing.lr;
  line.grad_norm = report.norm;
  line.tokens_per_second = tokens_per_second / static_cast<double>(world_);
  line.samples_per_second = static_cast<double>(report.samples) / timing.seconds;
  line.mfu = mfu;
  line.memory_bytes = static_cast<double>(timing.peak_memory_bytes);
  if (timing.memory_limit_bytes > 0)
    line.memory_limit_bytes = static_cast<double>(timing.memory_limit_bytes);
  line.data_seconds = timing.data_seconds;
  line.step_seconds = timing.seconds;
  line.unit = unit_;
  line.skipped = timing.skipped;
  progress_->step_done(line);
}

void RunLog::validated(int64_t step, const LossSum& sum) {
  if (!metrics_) return;
  const double loss = sum.loss / sum.tokens;
  log_info("step {}: validation loss {:.4f} over {} label tokens", step, without_nan_sign(loss),
           static_cast<int64_t>(sum.tokens));
  if (step == validated_before_) return;  // a run that was done already and was started again
  metrics_->write({{"step", step},
                   {"validation_loss", loss},
                   {"validation_label_tokens", static_cast<int64_t>(sum.tokens)}});
  if (events_) {
    const std::array scalars = {std::pair<std::string, double>{"validation/loss", loss}};
    events_->write(step, scalars);
  }
}

void RunLog::activity(const std::string& text) {
  if (progress_) progress_->activity(text);
}

}  // namespace triptych

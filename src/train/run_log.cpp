#include "train/run_log.h"

#include <array>
#include <utility>

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

void RunLog::step_done(const StepReport& report, const StepTiming& timing) {
  if (!metrics_) return;
  const double tokens_per_second = static_cast<double>(report.input_tokens) / timing.seconds;
  const double mfu = report.flop / (timing.seconds * timing.peak_flop_per_second);
  metrics_->write({{"step", timing.step},
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
                   {"updated", report.updated}});
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
  log_info("step {}: validation loss {:.4f} over {} label tokens", step, loss,
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

#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

namespace triptych {

/// What the progress line says about a finished step. Unset parts are left out.
struct ProgressReport {
  int64_t step = 0, steps = 0;  ///< finished, of how many
  double loss = 0, lr = 0, grad_norm = 0;
  double tokens_per_second = 0;   ///< per device
  double samples_per_second = 0;  ///< of all devices
  std::optional<double> mfu;      ///< ratio to the measured matrix-product peak
  double memory_bytes = 0;        ///< peak of this process
  std::optional<double> memory_limit_bytes;
  double data_seconds = 0;  ///< that the step waited for the loader
  double step_seconds = 0;
  std::string unit = "rank";  ///< what tokens_per_second is per: "gpu", "rank"
  int64_t skipped = 0;        ///< updates left out so far
};

/// "step 120/1000 12% | loss 1.2345 | ... | step 1.24 s | ETA 18m20s"
std::string progress_text(const ProgressReport& report, double eta_seconds);

/// NaN without its sign, which the sum that made it decided: "nan", never "-nan".
double without_nan_sign(double number);

/// "1 sample", "2 samples"
std::string counted(int64_t count, std::string_view noun);
/// "987", "21.4k", "3.20M"
std::string short_count(double number);
/// "61.3 GiB", "870 MiB"
std::string bytes_text(double bytes);

/// The progress display of rank 0. On a terminal one line under the log is rewritten, at most ten
/// times a second, and every `every` steps a line stays; elsewhere only those lines are written,
/// without control characters. Used from one thread.
class Progress {
 public:
  explicit Progress(int64_t every, int64_t first_step = 0);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();  ///< removes the live line

  void step_done(const ProgressReport& report);

  /// Seconds left by the median of the last steps' times; negative until ten are done.
  double eta_seconds(const ProgressReport& report) const;

  /// Shown instead of the step until the next one: "validating 3/20".
  void activity(const std::string& text);

 private:
  void show(const std::string& text, bool now);

  int64_t every_, first_step_, last_line_ = -1;
  bool terminal_;
  double last_shown_ = -1;
  std::deque<double> recent_;
};

}  // namespace triptych

#include "base/progress.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/clock.h"
#include "base/format.h"
#include "base/log.h"
#include "base/terminal.h"

namespace triptych {
namespace {

constexpr size_t kRecentSteps = 50;
constexpr size_t kStepsBeforeEta = 10;

/// Whole parts are dropped from the end; a number is never cut or wrapped.
std::string fit(const std::string& text, int width) {
  std::string shown = text;
  while (display_width(shown) >= width) {
    const size_t bar = shown.rfind(" | ");
    if (bar == std::string::npos) return "";
    shown.resize(bar);
  }
  return shown;
}

}  // namespace

std::string short_count(double number) {
  if (!std::isfinite(number)) return fmt::format("{}", number);
  if (number < 999.5) return fmt::format("{:.0f}", number);
  const char* suffixes = "kMGT";
  while (number >= 999.5 && *suffixes != '\0') {
    number /= 1000;
    ++suffixes;
  }
  const int digits = number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", number, digits, suffixes[-1]);
}

std::string bytes_text(double bytes) {
  if (bytes >= 0.9995 * (1 << 30)) return fmt::format("{:.1f} GiB", bytes / (1 << 30));
  return fmt::format("{:.0f} MiB", bytes / (1 << 20));
}

double without_nan_sign(double number) {
  return std::isnan(number) ? std::numeric_limits<double>::quiet_NaN() : number;
}

std::string counted(int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string progress_text(const ProgressReport& r, double eta_seconds) {
  std::vector<std::string> parts;
  const double percent =
      r.steps > 0 ? 100.0 * static_cast<double>(r.step) / static_cast<double>(r.steps) : 0;
  parts.push_back(fmt::format("step {}/{} {:.0f}%", r.step, r.steps, std::floor(percent)));
  parts.push_back(fmt::format("loss {:.4f}", without_nan_sign(r.loss)));
  parts.push_back(fmt::format("lr {:.2e}", r.lr));
  parts.push_back(fmt::format("gnorm {:.2f}", without_nan_sign(r.grad_norm)));
  parts.push_back(fmt::format("{} tok/s/{}", short_count(r.tokens_per_second), r.unit));
  parts.push_back(fmt::format("{:.1f} smp/s", r.samples_per_second));
  if (r.mfu) parts.push_back(fmt::format("MFU {:.1f}%", 100 * *r.mfu));
  parts.push_back(r.memory_limit_bytes
                      ? fmt::format("mem {:.1f}/{:.1f} GiB", r.memory_bytes / (1 << 30),
                                    *r.memory_limit_bytes / (1 << 30))
                      : "mem " + bytes_text(r.memory_bytes));
  const double share = r.step_seconds > 0 ? r.data_seconds / r.step_seconds : 0;
  parts.push_back(fmt::format("data {:.0f}%", 100 * share));
  parts.push_back(r.step_seconds < 0.1 ? fmt::format("step {:.0f} ms", 1000 * r.step_seconds)
                                       : fmt::format("step {:.2f} s", r.step_seconds));
  parts.push_back("ETA " + duration_text(eta_seconds));
  if (r.skipped > 0) parts.push_back(fmt::format("skipped {}", r.skipped));
  std::string text = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) text += fmt::format(" | {}", parts[i]);
  return text;
}

Progress::Progress(int64_t every, int64_t first_step)
    : every_(every), first_step_(first_step), terminal_(is_terminal(Stream::kStderr)) {}

Progress::~Progress() {
  if (terminal_) set_live_line("");
}

double Progress::eta_seconds(const ProgressReport& report) const {
  if (recent_.size() < kStepsBeforeEta) return -1;
  std::vector<double> times(recent_.begin(), recent_.end());
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle * static_cast<double>(report.steps - report.step);
}

void Progress::show(const std::string& text, bool now) {
  if (!terminal_) return;
  const double time = steady_seconds();
  if (!now && time - last_shown_ < 0.1) return;
  last_shown_ = time;
  set_live_line(fit(text, terminal_width(Stream::kStderr)));
}

void Progress::step_done(const ProgressReport& report) {
  recent_.push_back(report.step_seconds);
  if (recent_.size() > kRecentSteps) recent_.pop_front();
  const std::string text = progress_text(report, eta_seconds(report));
  const bool last = report.step == report.steps;
  if (report.step % every_ == 0 || report.step == first_step_ + 1 || last) {
    log_info("{}", text);
    last_line_ = report.step;
  }
  show(text, last);
}

void Progress::activity(const std::string& text) { show(text, false); }

}  // namespace triptych

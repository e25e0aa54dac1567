#include "base/progress.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/terminal.h"

namespace triptych {
namespace {

ProgressReport example() {
  return {.step = 120,
          .steps = 1000,
          .loss = 1.2345,
          .lr = 1e-5,
          .grad_norm = 0.87,
          .tokens_per_second = 21400,
          .samples_per_second = 3.2,
          .mfu = 0.412,
          .memory_bytes = 61.3 * (1 << 30),
          .memory_limit_bytes = 79.6 * (1 << 30),
          .data_seconds = 0.0248,
          .step_seconds = 1.24,
          .unit = "gpu"};
}

TEST(Progress, LineIsTheDocumentedOne) {
  EXPECT_EQ(progress_text(example(), 1100),
            "step 120/1000 12% | loss 1.2345 | lr 1.00e-05 | gnorm 0.87 | 21.4k tok/s/gpu | "
            "3.2 smp/s | MFU 41.2% | mem 61.3/79.6 GiB | data 2% | step 1.24 s | ETA 18m20s");
}

TEST(Progress, NanHasNoSign) {
  ProgressReport report = example();
  report.loss = report.grad_norm = -std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(progress_text(report, 0), testing::HasSubstr("| loss nan | lr 1.00e-05 | gnorm nan"));
}

TEST(Progress, OneIsNotMany) {
  EXPECT_EQ(counted(0, "sample"), "0 samples");
  EXPECT_EQ(counted(1, "sample"), "1 sample");
  EXPECT_EQ(counted(2, "sample"), "2 samples");
}

TEST(Progress, EtaNeedsTenSteps) {
  Progress progress(1000);
  ProgressReport report = example();
  report.steps = 130;
  testing::internal::CaptureStderr();
  for (int i = 0; i < 9; ++i) progress.step_done(report);
  EXPECT_LT(progress.eta_seconds(report), 0);
  report.step_seconds = 100;  // one slow step does not move the median
  progress.step_done(report);
  testing::internal::GetCapturedStderr();
  EXPECT_NEAR(progress.eta_seconds(report), 12.4, 1e-9);
}

TEST(Progress, OffATerminalOnlyPermanentLines) {
  Progress progress(10, 100);
  ProgressReport report = example();
  testing::internal::CaptureStderr();
  for (report.step = 101; report.step <= 120; ++report.step) progress.step_done(report);
  progress.activity("validating 1/2");
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);  // 101 (the first), 110, 120
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\r'), std::string::npos);
}

TEST(Progress, ShortNumbers) {
  EXPECT_EQ(short_count(7), "7");
  EXPECT_EQ(short_count(999.6), "1.00k");
  EXPECT_EQ(short_count(21400), "21.4k");
  EXPECT_EQ(short_count(3.2e6), "3.20M");
  EXPECT_EQ(short_count(999600), "1.00M");
  EXPECT_EQ(bytes_text(870.0 * (1 << 20)), "870 MiB");
  EXPECT_EQ(bytes_text(9.35 * (1 << 30)), "9.3 GiB");
}

TEST(Terminal, ColorsFollowTheSetting) {
  EXPECT_EQ(styled(Stream::kStderr, Style::kRed, "x"), "x");  // not a terminal
  set_color_mode(ColorMode::kAlways);
  EXPECT_EQ(styled(Stream::kStderr, Style::kRed, "x"), "\x1b[31mx\x1b[0m");
  EXPECT_EQ(display_width("\x1b[31mä€x\x1b[0m"), 3);
  set_color_mode(ColorMode::kAuto);
}

}  // namespace
}  // namespace triptych

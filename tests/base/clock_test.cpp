#include "base/clock.h"

#include <gtest/gtest.h>

namespace triptych {
namespace {

TEST(Clock, UtcTime) {
  EXPECT_EQ(utc_time(0), "1970-01-01T00:00:00.000+00:00");
  EXPECT_EQ(utc_time(1709210096.5), "2024-02-29T12:34:56.500+00:00");
  EXPECT_EQ(utc_time(59.9996), "1970-01-01T00:01:00.000+00:00");  // rounding carries
  EXPECT_EQ(utc_time_compact(1709210096.5), "20240229T123456Z");
}

TEST(Clock, DurationText) {
  EXPECT_EQ(duration_text(0.4), "0s");
  EXPECT_EQ(duration_text(1100), "18m20s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(3 * 3600 + 300), "3h05m");
  EXPECT_EQ(duration_text(2 * 86400 + 4 * 3600), "2d04h");
  EXPECT_EQ(duration_text(-1), "--:--");
}

TEST(Clock, SteadySecondsGoForward) {
  const double before = steady_seconds();
  EXPECT_LE(before, steady_seconds());
}

}  // namespace
}  // namespace triptych

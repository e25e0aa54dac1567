#include "train/schedule.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace triptych {
namespace {

struct Case {
  Schedule schedule;
  int64_t done;
  double rate;
};
class Rate : public testing::TestWithParam<Case> {};

TEST_P(Rate, IsThatOfTheReference) {
  EXPECT_NEAR(GetParam().schedule.rate(GetParam().done), GetParam().rate, 1e-12);
}

const Schedule kCosine{.kind = ScheduleKind::kCosine, .peak = 1, .warmup_steps = 10, .steps = 110};
const Schedule kLinear{.kind = ScheduleKind::kLinear, .peak = 1, .min = 0.2, .steps = 10};
const Schedule kConstant{.kind = ScheduleKind::kConstant, .peak = 3, .warmup_steps = 2, .steps = 5};

INSTANTIATE_TEST_SUITE_P(Cases, Rate,
                         testing::Values(Case{kCosine, 0, 0}, Case{kCosine, 5, 0.5},
                                         Case{kCosine, 10, 1}, Case{kCosine, 60, 0.5},
                                         Case{kCosine, 110, 0}, Case{kCosine, 500, 0},
                                         Case{kLinear, 0, 1}, Case{kLinear, 5, 0.6},
                                         Case{kLinear, 10, 0.2}, Case{kConstant, 1, 1.5},
                                         Case{kConstant, 4, 3}));

TEST(Schedule, UnknownNameIsRefused) { EXPECT_THROW(parse_schedule("cosinus"), UsageError); }

}  // namespace
}  // namespace triptych

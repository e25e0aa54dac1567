#include "parallel/batch_plan.h"

#include <gmock/gmock.h>

#include <cmath>
#include <vector>

namespace triptych {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

class Plans : public testing::TestWithParam<BatchPlan> {};

TEST_P(Plans, EverySampleHasOnePlace) {
  const auto plan = GetParam();
  std::vector<int64_t> per_rank(static_cast<size_t>(plan.data), 0);
  for (int64_t g = 0; g < plan.global_batch; ++g) {
    const auto place = plan.place(g);
    EXPECT_EQ(place.data_rank, g / plan.micro_batch % plan.data);
    EXPECT_EQ(place.micro_batch, g / (plan.micro_batch * plan.data));
    EXPECT_LT(place.micro_batch, plan.micro_batches());
    EXPECT_EQ(plan.sample(place), g);
    ++per_rank[static_cast<size_t>(place.data_rank)];
  }
  for (const auto n : per_rank) EXPECT_EQ(n, plan.micro_batches() * plan.micro_batch);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Plans,
                         testing::Values(BatchPlan{1, 1, 1}, BatchPlan{12, 2, 3},
                                         BatchPlan{8, 1, 4}, BatchPlan{30, 5, 2}));

TEST(BatchPlan, NamesTheArithmeticAndTheNearest) {
  Problems problems;
  validate(BatchPlan{30, 2, 4}, problems);
  ASSERT_EQ(problems.messages().size(), 1U);
  EXPECT_THAT(problems.messages()[0],
              HasSubstr("global_batch 30 is not divisible by micro_batch 2 * data-parallel ranks 4 "
                        "= 8; nearest: 24, 32"));
  Problems below;  // the smallest multiple alone, not twice
  validate(BatchPlan{2, 1, 3}, below);
  ASSERT_EQ(below.messages().size(), 1U);
  EXPECT_THAT(below.messages()[0], EndsWith("= 3; nearest: 3"));
}

// Two micro-batches with very unequal samples; losses are l = 10 * sample + token.
const std::vector<std::vector<int64_t>> kMicroBatches = {{1, 4}, {9, 0}};

struct Rule {
  LossAverage rule;
  double expected;
};
class LossRules : public testing::TestWithParam<Rule> {};

TEST_P(LossRules, EqualsTheTextbookMean) {
  LabelCounts step;
  for (const auto& samples : kMicroBatches) step += count_labels(samples);
  double loss = 0;
  int64_t index = 0;
  for (const auto& samples : kMicroBatches) {
    const auto counts = count_labels(samples);
    for (const auto n : samples) {
      for (int64_t t = 0; t < n; ++t) {
        loss +=
            token_weight(GetParam().rule, step, counts, n) * static_cast<double>(10 * index + t);
      }
      ++index;
    }
  }
  EXPECT_NEAR(loss, GetParam().expected, 1e-12);
}

// sums of l: sample 0: 0; sample 1: 10+11+12+13 = 46; sample 2: 20..28 = 216; sample 3: no labels
INSTANTIATE_TEST_SUITE_P(
    All, LossRules,
    testing::Values(Rule{LossAverage::kToken, 262.0 / 14},
                    Rule{LossAverage::kMicroBatch, (46.0 / 5 + 216.0 / 9) / 2},
                    Rule{LossAverage::kSample, (0.0 + 46.0 / 4 + 216.0 / 9) / 3},
                    Rule{LossAverage::kSquare, (0.0 + 46.0 / 2 + 216.0 / 3) / (1 + 2 + 3)}));

TEST(LossRules, NoLabelsGiveWeightZero) {
  const auto none = count_labels(std::vector<int64_t>{0, 0});
  for (const auto rule : {LossAverage::kToken, LossAverage::kMicroBatch, LossAverage::kSample,
                          LossAverage::kSquare}) {
    EXPECT_EQ(token_weight(rule, none, none, 0), 0.0);
  }
}

}  // namespace
}  // namespace triptych

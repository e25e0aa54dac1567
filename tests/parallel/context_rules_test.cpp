#include <gmock/gmock.h>

#include "parallel/layout_rules.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ParallelOptions context(int64_t ranks, ContextAlgorithm algorithm, int64_t degree = 0) {
  ParallelOptions options;
  options.context = ranks;
  options.context_algorithm = algorithm;
  options.ulysses_degree = degree;
  return options;
}

TEST(UlyssesSize, FollowsTheAlgorithm) {
  EXPECT_EQ(ulysses_size(context(8, ContextAlgorithm::kUlysses), 16), 8);
  EXPECT_EQ(ulysses_size(context(8, ContextAlgorithm::kDsp), 16), 8);
  EXPECT_EQ(ulysses_size(context(8, ContextAlgorithm::kRing), 16), 1);
  EXPECT_EQ(ulysses_size(context(8, ContextAlgorithm::kHybrid, 2), 16), 2);
}

TEST(UlyssesSize, IsAsLargeAsTheHeadsAllow) {
  EXPECT_EQ(ulysses_size(context(8, ContextAlgorithm::kHybrid), 6), 4);
  EXPECT_EQ(ulysses_size(context(6, ContextAlgorithm::kHybrid), 4), 3);
  EXPECT_EQ(ulysses_size(context(6, ContextAlgorithm::kHybrid), 16), 6);
  EXPECT_EQ(ulysses_size(context(7, ContextAlgorithm::kHybrid), 4), 1);
}

TEST(ContextRules, UlyssesNeedsAHeadForEveryRank) {
  auto options = context(8, ContextAlgorithm::kUlysses);
  options.tensor = 2;
  const LayerSizes text{.name = "text", .heads = 8, .key_value_heads = 2};
  Problems problems;
  validate_context(text, options, problems);
  EXPECT_THAT(problems.messages(),
              ElementsAre(HasSubstr("parallel: ulysses degree 8 exceeds the 4 query heads of the "
                                    "text model on a rank (8 heads / tensor 2)")));
  for (const auto algorithm : {ContextAlgorithm::kRing, ContextAlgorithm::kHybrid}) {
    options.context_algorithm = algorithm;
    Problems none;
    validate_context(text, options, none);
    EXPECT_THAT(none.messages(), IsEmpty());
  }
}

TEST(ContextRules, UnevenHeadsAreAllowedAndSaidToCost) {
  const LayerSizes text{.name = "text", .heads = 8, .key_value_heads = 2};
  const auto uneven = context(3, ContextAlgorithm::kUlysses);
  Problems problems;
  validate_context(text, uneven, problems);
  EXPECT_THAT(problems.messages(), IsEmpty());
  EXPECT_EQ(context_advice(text, uneven),
            "parallel: 8 heads on 3 Ulysses ranks: the busiest has 3, 12 % above the mean");
  EXPECT_EQ(context_advice(text, context(4, ContextAlgorithm::kUlysses)), "");
}

}  // namespace
}  // namespace triptych

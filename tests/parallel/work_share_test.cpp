#include "parallel/work_share.h"

#include <gmock/gmock.h>

#include "base/error.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using Rows = std::vector<int64_t>;

TEST(ShareByCost, GivesTheDearestFirst) {
  const std::vector<double> costs{2, 7, 3, 3, 6};  // 7 + 3 | 6 + 3 + 2
  EXPECT_THAT(share_by_cost(costs, 2), ElementsAre(1, 0, 1, 0, 1));
  EXPECT_DOUBLE_EQ(imbalance(costs, share_by_cost(costs, 2), 2), 11 / 10.5);
}

TEST(ShareByCost, BreaksTiesByNumber) {
  const std::vector<double> costs{1, 1, 1};
  EXPECT_THAT(share_by_cost(costs, 4), ElementsAre(0, 1, 2));
  EXPECT_THAT(share_by_cost({}, 2), testing::IsEmpty());
}

TEST(CutByCost, KeepsTheOrder) {
  const std::vector<double> costs{4, 4, 4, 1, 1, 1, 1};
  EXPECT_THAT(cut_by_cost(costs, 2), ElementsAre(0, 2, 7));
  EXPECT_THAT(cut_by_cost(costs, 1), ElementsAre(0, 7));
  const std::vector<double> one{5};
  EXPECT_THAT(cut_by_cost(one, 3), ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(cut_by_cost({}, 2), ElementsAre(0, 0, 0));
}

// Items 0 1 2 lie on rank 1 in the order 2 0 1, items 3 4 on rank 0; rank 0 wants 1 4 2, rank 1
// wants 3 0, rank 2 nothing.
TEST(PlanRoute, SaysWhatGoesWhereAndHowItArrives) {
  const std::vector<Rows> held{{3, 4}, {2, 0, 1}, {}}, needed{{1, 4, 2}, {3, 0}, {}};
  const auto zero = plan_route(held, needed, 5, 0), one = plan_route(held, needed, 5, 1);
  EXPECT_THAT(zero.rows, ElementsAre(1, 0));  // 4 to rank 0, 3 to rank 1
  EXPECT_THAT(zero.send, ElementsAre(1, 1, 0));
  EXPECT_THAT(one.rows, ElementsAre(2, 0, 1));  // 1 and 2 to rank 0, 0 to itself
  EXPECT_THAT(one.send, ElementsAre(2, 1, 0));
  EXPECT_THAT(zero.receive, ElementsAre(1, 2, 0));  // arrive as 4 | 1 2
  EXPECT_THAT(zero.arrival, ElementsAre(1, 0, 2));
  EXPECT_THAT(one.arrival, ElementsAre(0, 1));
  EXPECT_THAT(plan_route(held, needed, 5, 2).send, ElementsAre(0, 0, 0));
  const std::vector<Rows> lost{{3, 4}, {2, 0}, {}};
  EXPECT_THAT([&] { plan_route(lost, needed, 5, 0); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("no rank holds item 1")));
}

}  // namespace
}  // namespace triptych

// When a clock is said to differ: collectives of two hosts that end together, apart, or here and
// there.

#include <gtest/gtest.h>

#include "base/format.h"
#include "insight/queries.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

/// Twelve all-reduces, 10 ms apart, which end on rank 1, by its host's clock, so much later (us).
std::shared_ptr<Run> two_hosts(const std::vector<int>& later_us) {
  std::vector<std::string> texts;
  for (int rank = 0; rank < 2; ++rank) {
    std::string events;
    for (int i = 0; i < 12; ++i) {
      const int extra = rank == 0 ? 0 : later_us[static_cast<size_t>(i) % later_us.size()];
      events += fmt::format(
          R"({{"ph":"X","cat":"mm_comm","name":"dp allreduce","pid":1,"tid":1,"ts":{},"dur":{},
             "args":{{"Collective name":"allreduce","Process Group Name":"data","Seq":{},
             "Process Group Ranks":"[0, 1]","Bytes":64}}}},)",
          10000 * (i + 1), 5000 + extra, i);
    }
    texts.push_back(fmt::format(
        R"({{"distributedInfo":{{"rank":{},"world_size":2}},"mm":{{"host":"host{}"}},"traceEvents":[{}]}})",
        rank, rank, events.substr(0, events.size() - 1)));
  }
  return run_of(texts);
}

Json skews(const std::vector<int>& later_us) {
  Json list = Json::array();
  const auto found = Queries(two_hosts(later_us)).findings({});
  for (const auto& f : found["findings"])
    if (f["kind"] == "clock_skew") list.push_back(f);
  return list;
}

TEST(ClockSkew, IsNamedWhereTheEndsAgree) {
  const auto found = skews({600, 620, 580});
  ASSERT_EQ(found.size(), 1u) << found;
  EXPECT_EQ(found[0]["rank"], 1);
  // From the middle of the two to the middle of the two: the whole difference, corrected.
  EXPECT_EQ(found[0]["evidence"]["offset_ns"], -600000);
  EXPECT_LE(found[0]["evidence"]["scatter_ns"].get<int64_t>(), 10000);
}

TEST(ClockSkew, IsNotWhereTheEndsScatterAsMuch) {
  // 0.6 ms again, in the middle of ends up to 3 ms apart.
  EXPECT_TRUE(skews({-1800, -600, 600, 1500, 2400, 600}).empty());
}

TEST(ClockSkew, OneRankThatLostItsCoreOnceHidesNone) {
  EXPECT_EQ(skews({600, 600, 600, 600, 600, 9000}).size(), 1u);
}

TEST(ClockSkew, SmallOnesAreNot) { EXPECT_TRUE(skews({150}).empty()); }

}  // namespace
}  // namespace triptych::insight

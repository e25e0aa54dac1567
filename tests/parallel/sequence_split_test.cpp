#include "parallel/sequence_split.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

namespace triptych {
namespace {

using testing::ElementsAre;
using Rows = std::vector<int64_t>;

// Two samples of 8 and 4 tokens on a ring of 2: chunks 0 and 3 of each, chunks 1 and 2 of each.
TEST(SequenceSplit, ZigzagOfEverySample) {
  const Rows bounds{0, 8, 12};
  const SequenceSplit split(bounds, 2, 1, true);
  EXPECT_THAT(split.rows(0, 0), ElementsAre(0, 1, 6, 7, 8, 11));
  EXPECT_THAT(split.rows(1, 0), ElementsAre(2, 3, 4, 5, 9, 10));
  EXPECT_EQ(split.share(1, 0).early, 2);
  EXPECT_EQ(split.share(1, 0).late, 2);
}

TEST(SequenceSplit, PiecesOfARingPartFollowEachOther) {
  const Rows bounds{0, 8, 12};
  const SequenceSplit split(bounds, 2, 2, true);
  EXPECT_THAT(split.rows(0, 0), ElementsAre(0, 1, 6));
  EXPECT_THAT(split.rows(0, 1), ElementsAre(7, 8, 11));
  EXPECT_THAT(split.piece_sizes(1), ElementsAre(3, 3));
}

TEST(SequenceSplit, ContiguousWithoutACausalMask) {
  const Rows bounds{0, 6, 10};
  const SequenceSplit split(bounds, 2, 1, false);
  EXPECT_THAT(split.rows(0, 0), ElementsAre(0, 1, 2, 6, 7));
  EXPECT_EQ(split.share(0, 1).late, 0);
}

// Samples shorter than the number of chunks, and empty ones: every token is somewhere, once, and a
// rank's tokens of a sample are in increasing order.
TEST(SequenceSplit, HoldsEveryTokenOnce) {
  const Rows bounds{0, 1, 1, 4, 21, 23, 60};
  for (const int64_t ring : {1, 2, 3, 4}) {
    for (const int64_t ulysses : {1, 2, 3}) {
      for (const bool zigzag : {true, false}) {
        const SequenceSplit split(bounds, ring, ulysses, zigzag);
        Rows all;
        for (int64_t r = 0; r < ring; ++r) {
          int64_t part = 0;
          for (int64_t u = 0; u < ulysses; ++u) {
            const auto rows = split.rows(r, u);
            EXPECT_EQ(static_cast<int64_t>(rows.size()), split.tokens(r, u));
            EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
            part += split.tokens(r, u);
            all.insert(all.end(), rows.begin(), rows.end());
          }
          EXPECT_EQ(part, split.tokens(r));
        }
        std::sort(all.begin(), all.end());
        Rows want(60);
        std::iota(want.begin(), want.end(), 0);
        EXPECT_EQ(all, want);
      }
    }
  }
}

// The causal work of a long sample: keys seen, summed over a rank's queries.
TEST(SequenceSplit, ZigzagBalancesTheWork) {
  const Rows bounds{0, 1000};
  const auto work = [&](bool zigzag) {
    const SequenceSplit split(bounds, 4, 1, zigzag);
    int64_t least = INT64_MAX, most = 0;
    for (int64_t r = 0; r < 4; ++r) {
      int64_t keys = 0;
      for (const auto row : split.rows(r, 0)) keys += row + 1;
      least = std::min(least, keys);
      most = std::max(most, keys);
    }
    return static_cast<double>(most) / static_cast<double>(least);
  };
  EXPECT_LT(work(true), 1.01);
  EXPECT_GT(work(false), 6);
}

}  // namespace
}  // namespace triptych

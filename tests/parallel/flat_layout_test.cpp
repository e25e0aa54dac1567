#include "parallel/flat_layout.h"

#include <gtest/gtest.h>

#include <numeric>

namespace triptych {
namespace {

struct Case {
  std::vector<int64_t> lengths;
  int64_t bucket_elements, ranks;
  size_t buckets;
};
class Layouts : public testing::TestWithParam<Case> {};

// Aligned, without overlap, divisible by the ranks; the shards of all ranks cover each parameter
// once.
TEST_P(Layouts, CoverEveryElementOnce) {
  const auto& [lengths, bucket_elements, ranks, count] = GetParam();
  const auto layout = plan_buckets(lengths, bucket_elements, ranks);
  EXPECT_EQ(layout.buckets.size(), count);
  size_t next = 0;
  for (const auto& bucket : layout.buckets) {
    EXPECT_EQ(bucket.elements % std::lcm(ranks, int64_t{128}), 0);
    int64_t end = 0;
    for (const auto& slot : bucket.slots) {
      EXPECT_EQ(slot.parameter, next++);  // in the order given
      EXPECT_EQ(slot.length, lengths[slot.parameter]);
      EXPECT_EQ(slot.offset % FlatLayout::kAlignment, 0);
      EXPECT_GE(slot.offset, end);
      end = slot.offset + slot.length;
      int64_t covered = 0;
      const int64_t shard = bucket.elements / ranks;
      for (int64_t r = 0; r < ranks; ++r) {
        const auto part = intersect(slot, r * shard, (r + 1) * shard);
        if (part.length == 0) continue;
        EXPECT_EQ(part.in_parameter, covered);
        EXPECT_EQ(r * shard + part.in_range, slot.offset + part.in_parameter);
        covered += part.length;
      }
      EXPECT_EQ(covered, slot.length);
    }
    EXPECT_LE(end, bucket.elements);
  }
  EXPECT_EQ(next, lengths.size());
}

INSTANTIATE_TEST_SUITE_P(Rows, Layouts,
                         testing::Values(Case{{}, 100, 2, 0}, Case{{1}, 1000, 3, 1},
                                         Case{{700, 3, 64, 65, 1}, 700, 2, 2},
                                         Case{{700, 3, 64, 65, 1}, 1, 4, 5},
                                         Case{{100, 100, 100, 5000, 7}, 1 << 20, 7, 1}));

}  // namespace
}  // namespace triptych

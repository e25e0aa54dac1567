#include "base/random.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "base/error.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// Known answers published with Random123 (kat_vectors, "philox4x32 10").
struct KnownAnswer {
  uint32x4 counter;
  std::array<uint32_t, 2> key;
  uint32x4 want;
};
class Philox : public testing::TestWithParam<KnownAnswer> {};

TEST_P(Philox, KnownAnswers) {
  EXPECT_EQ(philox(GetParam().counter, GetParam().key), GetParam().want);
}

INSTANTIATE_TEST_SUITE_P(
    Random123, Philox,
    testing::Values(
        KnownAnswer{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        KnownAnswer{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                    {0xffffffff, 0xffffffff},
                    {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        KnownAnswer{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                    {0xa4093822, 0x299f31d0},
                    {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}));

TEST(Random, StreamsAndSeedsHaveTheirOwnKeys) {
  std::set<std::array<uint32_t, 2>> keys;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint32_t stream = 0; stream < 12; ++stream) {
      keys.insert(philox_key({seed, static_cast<RandomStream>(stream)}));
    }
  }
  EXPECT_EQ(keys.size(), 1200u);
}

TEST(Random, ResultsAreFrozen) {  // a change here breaks every resumed run
  const RandomKey key{42, RandomStream::kInit};
  EXPECT_EQ(philox(key, 7, 9), philox({7, 0, 9, 0}, philox_key(key)));
  EXPECT_EQ(philox_key(key), (std::array<uint32_t, 2>{2896100393u, 2125706132u}));
  EXPECT_EQ(permute(0, 10, {1, RandomStream::kShuffle}), 1u);
}

TEST(Random, UniformCoversTheHalfOpenInterval) {
  EXPECT_EQ(uniform_from_bits(0), 0.0f);
  EXPECT_LT(uniform_from_bits(0xffffffff), 1.0f);
  double sum = 0;
  for (uint64_t i = 0; i < 40000; ++i) sum += uniform({3, RandomStream::kNoise}, i);
  EXPECT_NEAR(sum / 40000, 0.5, 4 / std::sqrt(12.0 * 40000));  // 4 standard errors
}

TEST(Random, NormalHasTheRightMoments) {
  const RandomKey key{3, RandomStream::kNoise};
  const int n = 40000;
  double sum = 0, squares = 0, fourth = 0, products = 0, before = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const double z = normal(key, i, 5);
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
    products += z * before;
    before = z;
  }
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 4 * std::sqrt(2.0 / n));
  EXPECT_NEAR(fourth / n, 3, 4 * std::sqrt(96.0 / n));
  EXPECT_NEAR(products / n, 0, 4 / std::sqrt(n));
}

TEST(Random, FillsEqualSingleDrawsAtAnyOffset) {
  const RandomKey key{11, RandomStream::kInit};
  for (const uint64_t first : {0u, 1u, 2u, 3u, 4u, 1000001u}) {
    std::vector<float> u(13), z(13);
    fill_uniform(u, key, first, 6);
    fill_normal(z, key, first, 6);
    for (uint64_t i = 0; i < 13; ++i) {
      EXPECT_EQ(u[i], uniform(key, first + i, 6));
      EXPECT_EQ(z[i], static_cast<float>(normal(key, first + i, 6)));
    }
  }
}

class Permute : public testing::TestWithParam<uint64_t> {};

TEST_P(Permute, IsAPermutation) {
  const uint64_t size = GetParam();
  std::vector<bool> seen(size, false);
  for (uint64_t i = 0; i < size; ++i) {
    const uint64_t to = permute(i, size, {42, RandomStream::kShuffle}, 3);
    ASSERT_LT(to, size);
    ASSERT_FALSE(seen[to]) << "hit twice: " << to;
    seen[to] = true;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Permute,
                         testing::Values(1, 2, 3, 4, 5, 7, 8, 9, 31, 100, 1000, 1024, 1025, 4097));

TEST(Permute, EpochsAndSeedsDiffer) {
  const auto order = [](uint64_t seed, uint64_t epoch) {
    std::vector<uint64_t> o;
    for (uint64_t i = 0; i < 50; ++i) {
      o.push_back(permute(i, 50, {seed, RandomStream::kShuffle}, epoch));
    }
    return o;
  };
  EXPECT_NE(order(1, 0), order(1, 1));
  EXPECT_NE(order(1, 0), order(2, 0));
  EXPECT_EQ(order(1, 0), order(1, 0));
}

TEST(Permute, EveryElementGoesEverywhereEquallyOften) {
  // 6 elements, 12,000 seeds: each of the 36 counts is 2000 with a standard deviation of 41.
  int counts[6][6] = {};
  for (uint64_t seed = 0; seed < 12000; ++seed) {
    for (uint64_t i = 0; i < 6; ++i) ++counts[i][permute(i, 6, {seed, RandomStream::kShuffle})];
  }
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, 2000, 205);  // 5 standard deviations
  }
}

TEST(Permute, IndexBeyondTheSizeIsRefused) {
  EXPECT_THAT([] { permute(5, 5, {}); }, ThrowsMessage<Error>(HasSubstr("index 5 must be below")));
}

}  // namespace
}  // namespace triptych

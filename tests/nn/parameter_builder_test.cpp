// What each tensor rank holds of a parameter, without any process: groups connect only when used.

#include "nn/parameter_builder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "nn/linear.h"
#include "nn/model.h"
#include "parallel/group.h"
#include "parallel/group_host.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// Groups as rank `rank` of `ranks` has them.
struct FakeRank {
  FakeRank(int64_t ranks, int64_t rank, bool sequence = false)
      : host(std::make_shared<GroupHost>()) {
    host->rank = rank;
    std::vector<int64_t> members;
    for (int64_t r = 0; r < ranks; ++r) members.push_back(r);
    group = std::make_unique<Group>(host, "tensor", members);
    groups = {.tensor = group.get(), .sequence = sequence};
  }
  std::shared_ptr<GroupHost> host;
  std::unique_ptr<Group> group;
  ModelGroups groups;
};

constexpr Placement::Split thirds(int64_t unit) { return {.dim = 0, .sections = 3, .unit = unit}; }

TEST(HeldRanges, ThirdsTakeHeadsOfEachThird) {
  EXPECT_THAT(held_ranges(thirds(8), 96, 2, 1),
              ElementsAre(Range{16, 16}, Range{48, 16}, Range{80, 16}));
}

TEST(HeldRanges, GroupedIsOneRangeOfWholeGroups) {
  // 2 key/value heads, 4 query heads of 8 rows: a group is (2 + 2) x 8 rows
  EXPECT_THAT(held_ranges({.dim = 0, .unit = 32}, 64, 2, 1), ElementsAre(Range{32, 32}));
}

TEST(HeldRanges, FewerUnitsThanRanksAreHeldBySeveral) {
  for (int64_t rank = 0; rank < 4; ++rank) {
    EXPECT_THAT(held_ranges({.dim = 0, .unit = 8}, 16, 4, rank),
                ElementsAre(Range{rank / 2 * 8, 8}));
  }
  EXPECT_THAT([] { held_ranges({.dim = 0, .unit = 8}, 16, 3, 0); },
              ThrowsMessage<Error>(HasSubstr("2 units of 8 cannot be shared by 3 ranks")));
}

// 25 heads on 4 ranks: 6 or 7 each, in order, none twice.
TEST(HeldRanges, UnevenHeadsDifferByOne) {
  int64_t at = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const auto held = held_ranges({.dim = 0, .unit = 2}, 50, 4, rank);
    ASSERT_EQ(held.size(), 1u);
    EXPECT_EQ(held[0].start, at);
    EXPECT_TRUE(held[0].length == 12 || held[0].length == 14) << held[0].length;
    at += held[0].length;
  }
  EXPECT_EQ(at, 50);
}

/// Random values of a part are those of the whole, whatever the cut.
TEST(Initialise, DrawsThePartOfTheWhole) {
  struct Case {
    std::vector<int64_t> shape;
    Placement::Split split;
    Parameter::Init::Kind kind;
  };
  const Case cases[] = {{{96, 5}, thirds(8), Parameter::Init::Kind::kNormal},
                        {{7, 30}, {.dim = 1, .unit = 3}, Parameter::Init::Kind::kNormal},
                        {{13, 6}, {.dim = 0}, Parameter::Init::Kind::kUniform},
                        {{3, 16, 2}, {.dim = 1, .unit = 8}, Parameter::Init::Kind::kNormal}};
  for (const auto& c : cases) {
    const ParameterSpec spec{.name = "w",
                             .part = "text",
                             .shape = c.shape,
                             .init = {c.kind, 0.5},
                             .placement = {c.split}};
    const auto whole = make_parameter(spec, {});
    initialise({whole}, 7, at::kCPU);
    for (int64_t rank = 0; rank < 2; ++rank) {
      const FakeRank fake(2, rank);
      const auto part = make_parameter(spec, fake.groups);
      EXPECT_EQ(part->value.numel() * 2,
                c.shape[0] == 13 ? 78 + (rank == 0 ? -6 : 6) : whole->value.numel());
      initialise({part}, 7, at::kCPU);
      EXPECT_TRUE(part->value.equal(part_of(*part, whole->value.detach()))) << rank;
    }
  }
}

// docs/spec/parallelism.md, 2.2.6: who needs the extra sum.
TEST(Placements, FollowTheTableOfGradientSums) {
  for (const bool sequence : {false, true}) {
    const FakeRank fake(2, 1, sequence);
    const auto column = placement_of(LinearSplit::column(4), fake.groups);
    EXPECT_TRUE(column.lora_a.sum_over_tensor);
    EXPECT_FALSE(column.lora_b.sum_over_tensor || column.bias.sum_over_tensor);
    EXPECT_EQ(column.lora_b.split->unit, 4);
    const auto row = placement_of(LinearSplit::row(), fake.groups);
    EXPECT_EQ(row.bias.sum_over_tensor, sequence);
    EXPECT_TRUE(row.lora_b.sum_over_tensor);
    EXPECT_FALSE(row.lora_a.sum_over_tensor || row.bias.split.has_value());
    EXPECT_EQ(row.lora_a.split->dim, 1);
    EXPECT_FALSE(placement_of(LinearSplit::row_to_whole(), fake.groups).bias.sum_over_tensor);
    const auto between = placement_of(LinearSplit::between(), fake.groups);
    for (const auto& part : {between.weight, between.bias, between.lora_a, between.lora_b})
      EXPECT_EQ(part.sum_over_tensor, sequence);
    EXPECT_FALSE(placement_of(LinearSplit::none(), fake.groups).weight.sum_over_tensor);
  }
}

TEST(Parameter, OneRankHoldsAndCountsAll) {
  ParameterBuilder builder(at::kFloat);
  Linear linear(builder, "x", "text", 6, 9, true, LinearSplit::column(3), 0.1);
  EXPECT_TRUE(linear.weight->held.empty());
  EXPECT_TRUE(linear.weight->first_copy);
  EXPECT_EQ(linear.weight->value.sizes(), at::IntArrayRef({9, 6}));
}

TEST(Parameter, CopiesAreCountedOnce) {
  for (int64_t rank = 0; rank < 4; ++rank) {
    const FakeRank fake(4, rank);
    ParameterBuilder builder(at::kFloat, fake.groups);
    Linear heads(builder, "k", "text", 6, 16, false, LinearSplit::column(8), 0.1);
    EXPECT_EQ(heads.weight->copies, 2);
    EXPECT_EQ(heads.weight->first_copy, rank % 2 == 0);
    const auto whole = builder.make("norm", "text", {6}, {});
    EXPECT_EQ(whole->first_copy, rank == 0);
  }
}

}  // namespace
}  // namespace triptych

#include "parallel/mesh.h"

#include <gmock/gmock.h>

#include <set>

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Groups = std::vector<std::vector<int64_t>>;

Groups first(const Groups& groups, size_t count) {
  return {groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(count)};
}

TEST(Mesh, WorkedExampleOfSixteenRanks) {
  const Mesh mesh(16, {.tensor = 2, .context = 2, .ulysses = 2, .pipeline = 2});
  EXPECT_EQ(mesh.size(MeshDim::kData), 2);
  EXPECT_EQ(first(mesh.groups(kTensorGroup), 2), (Groups{{0, 1}, {2, 3}}));
  EXPECT_EQ(first(mesh.groups(kContextGroup), 3), (Groups{{0, 2}, {1, 3}, {4, 6}}));
  EXPECT_EQ(first(mesh.groups(kDataGroup), 5), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}, {8, 12}}));
  EXPECT_EQ(first(mesh.groups(kPipelineGroup), 2), (Groups{{0, 8}, {1, 9}}));
  EXPECT_EQ(mesh.groups(kGradientGroup),
            (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}));
  EXPECT_EQ(mesh.groups(kModelGroup).front(), (std::vector<int64_t>{0, 1, 8, 9}));
  EXPECT_EQ(mesh.groups(kWorldGroup).size(), 1U);
}

TEST(Mesh, ContextFactorsIntoUlyssesInsideRing) {
  const Mesh mesh(8, {.context = 8, .ulysses = 2});
  EXPECT_EQ(mesh.groups(kUlyssesGroup), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(mesh.groups(kRingGroup), (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}}));
}

TEST(Mesh, OrderMovesPipelineNeighboursTogether) {
  const Mesh mesh(8, {.tensor = 2,
                      .pipeline = 2,
                      .order = {Axis::kTensor, Axis::kContext, Axis::kPipeline, Axis::kData}});
  EXPECT_EQ(mesh.groups(kPipelineGroup), (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(mesh.groups(kDataGroup), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
}

struct Shape {
  int64_t world;
  MeshShape shape;
};
class AnyMesh : public testing::TestWithParam<Shape> {};

// Every family of groups cuts the world into equal parts, each member finds the same group, and
// ranks and coordinates are inverse.
TEST_P(AnyMesh, GroupsPartitionTheWorld) {
  const auto& [world, shape] = GetParam();
  const Mesh mesh(world, shape);
  for (int64_t r = 0; r < world; ++r) EXPECT_EQ(mesh.rank(mesh.coordinates(r)), r);
  for (const auto dims : {kTensorGroup, kContextGroup, kRingGroup, kDataGroup, kPipelineGroup,
                          kGradientGroup, kModelGroup, kTensorContextGroup, MeshDims{}}) {
    std::set<int64_t> seen;
    for (const auto& group : mesh.groups(dims)) {
      EXPECT_EQ(static_cast<int64_t>(group.size()), mesh.size(dims)) << to_string(dims);
      EXPECT_TRUE(std::is_sorted(group.begin(), group.end()));
      for (const auto r : group) {
        EXPECT_TRUE(seen.insert(r).second);
        EXPECT_EQ(mesh.ranks(dims, r), group);
      }
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), world);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AnyMesh,
    testing::Values(Shape{1, {}}, Shape{6, {.tensor = 3}},
                    Shape{24, {.tensor = 2, .context = 6, .ulysses = 3, .pipeline = 2}},
                    Shape{24,
                          {.tensor = 2,
                           .context = 2,
                           .pipeline = 3,
                           .order = {Axis::kPipeline, Axis::kData, Axis::kContext, Axis::kTensor}}},
                    Shape{4, {.pipeline = 2, .order = {Axis::kData, Axis::kPipeline}}}));

struct Bad {
  int64_t world;
  MeshShape shape;
  std::string message;
};
class BadMesh : public testing::TestWithParam<Bad> {};

TEST_P(BadMesh, SaysTheArithmetic) {
  EXPECT_THAT([] { Mesh(GetParam().world, GetParam().shape); },
              testing::ThrowsMessage<UsageError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Rules, BadMesh,
    testing::Values(
        Bad{12,
            {.tensor = 2, .context = 2, .pipeline = 2},
            "world size 12 is not divisible by tensor*context*pipeline = 2*2*2 = 8; nearest world "
            "sizes: 8, 16"},
        Bad{2, {.tensor = 3}, "= 3*1*1 = 3; nearest world sizes: 3"},
        Bad{8, {.context = 8, .ulysses = 3}, "context 8 is not divisible by ulysses_degree 3"},
        Bad{4, {.tensor = 0}, "at least 1, got tensor 0"},
        Bad{4, {.order = {Axis::kTensor}}, "order leaves out 'data', whose size is 4"},
        Bad{1, {.order = {Axis::kData, Axis::kData}}, "order names 'data' 2 times"}));

TEST(Mesh, GroupNames) {
  EXPECT_EQ(to_string(kGradientGroup), "data x context");
  EXPECT_EQ(to_string(kRingGroup), "ring");
  EXPECT_EQ(to_string(kWorldGroup), "world");
}

}  // namespace
}  // namespace triptych

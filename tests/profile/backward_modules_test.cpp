#include <gmock/gmock.h>

#include "profile/recorder.h"

namespace triptych {
namespace {

using testing::ElementsAre;

struct Range {
  std::string name;
  int64_t begin, end, thread;
  bool operator==(const Range&) const = default;
};
void PrintTo(const Range& r, std::ostream* out) {
  *out << r.name << " [" << r.begin << ", " << r.end << ") on " << r.thread;
}

std::vector<Range> ranges(const std::vector<ModuleRun>& modules, std::vector<NodeRun> nodes) {
  std::vector<Range> result;
  for (const auto& s : backward_modules(modules, std::move(nodes)))
    result.push_back({s.name, s.begin_ns, s.end_ns, s.thread});
  return result;
}

NodeRun node(int64_t number, int64_t begin, int64_t end, uint64_t forward_thread = 1,
             int64_t thread = 50) {
  return {number, forward_thread, thread, begin, end};
}

TEST(BackwardModules, NodesOfOneModuleJoin) {
  // A made nodes 0 and 1, B made 2; backward runs them in reverse
  const std::vector<ModuleRun> modules = {{"A", 1, 0, 2}, {"B", 1, 2, 3}};
  EXPECT_THAT(ranges(modules, {node(2, 10, 20), node(1, 20, 25), node(0, 26, 30)}),
              ElementsAre(Range{"B", 10, 20, 50}, Range{"A", 20, 30, 50}));
}

TEST(BackwardModules, InnerModulesAreInsideOfOuterOnes) {
  // the outer module runs from 0 to 4, q_proj inside it is node 1
  const std::vector<ModuleRun> modules = {{"layer.q_proj", 1, 1, 2}, {"layer", 1, 0, 4}};
  EXPECT_THAT(ranges(modules, {node(3, 10, 12), node(2, 12, 14), node(1, 14, 18), node(0, 18, 19)}),
              ElementsAre(Range{"layer", 10, 19, 50}, Range{"layer.q_proj", 14, 18, 50}));
}

TEST(BackwardModules, AccumulationOfGradientsBelongsToNobodyAndPartsNothing) {
  const std::vector<ModuleRun> modules = {{"A", 1, 0, 2}};
  EXPECT_THAT(ranges(modules, {node(1, 10, 12), node(-1, 12, 13, 0), node(0, 13, 15)}),
              ElementsAre(Range{"A", 10, 15, 50}));
}

TEST(BackwardModules, NumbersOfOtherThreadsAreOtherNumbers) {
  const std::vector<ModuleRun> modules = {{"A", 1, 0, 2}, {"B", 2, 0, 2}};
  EXPECT_THAT(ranges(modules, {node(1, 10, 12, 1), node(1, 12, 14, 2)}),
              ElementsAre(Range{"A", 10, 12, 50}, Range{"B", 12, 14, 50}));
}

TEST(BackwardModules, MicroBatchesOfOneModuleStayApart) {
  const std::vector<ModuleRun> modules = {{"A", 1, 0, 2}, {"A", 1, 2, 4}};
  EXPECT_THAT(ranges(modules, {node(3, 10, 11), node(2, 11, 12), node(1, 20, 21), node(0, 21, 22)}),
              ElementsAre(Range{"A", 10, 12, 50}, Range{"A", 20, 22, 50}));
}

TEST(BackwardModules, ARecomputedLayerRunsInsideOfItsNode) {
  // node 0 is the recomputation; its own forward made nodes 5 and 6 in a run of the same name
  const std::vector<ModuleRun> modules = {{"A", 1, 0, 1}, {"A", 1, 5, 7}};
  EXPECT_THAT(ranges(modules, {node(0, 10, 40), node(6, 20, 25), node(5, 25, 35)}),
              ElementsAre(Range{"A", 10, 40, 50}, Range{"A", 20, 35, 50}));
}

}  // namespace
}  // namespace triptych

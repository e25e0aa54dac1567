#include "parallel/schedule.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr SlotTimes kSpecTimes{.forward = 1, .backward_input = 1, .backward_weight = 1};

/// All shapes with up to 8 stages, 4 chunks and 16 micro-batches that the rules allow.
std::vector<PipelineShape> all_shapes() {
  std::vector<PipelineShape> shapes;
  for (int64_t p = 2; p <= 8; ++p) {
    for (int64_t v = 1; v <= 4; ++v) {
      for (int64_t m = 1; m <= 16; ++m) {
        for (const int64_t group : {int64_t{0}, p + 1}) {
          for (const auto order : {PipelineOrder::k1F1B, PipelineOrder::kZeroBubbleH1}) {
            const PipelineShape shape{p, v, m, group, order};
            Problems problems;
            validate(shape, problems);
            if (problems.empty() && (v > 1 || group == 0)) shapes.push_back(shape);
          }
        }
      }
    }
  }
  return shapes;
}

std::string text(const PipelineShape& s) {
  return testing::PrintToString(
      std::vector{s.stages, s.chunks, s.micro_batches, s.group, static_cast<int64_t>(s.order)});
}

TEST(Schedule, EveryMicroBatchOfEveryChunkOnceInOrder) {
  ASSERT_GT(all_shapes().size(), 300U);
  for (const auto& shape : all_shapes()) {
    for (int64_t rank = 0; rank < shape.stages; ++rank) {
      std::map<std::pair<SlotKind, int64_t>, std::vector<int64_t>> seen;  // (kind, chunk)
      for (const auto& slot : stage_schedule(shape, rank))
        seen[{slot.kind, slot.chunk}].push_back(slot.micro_batch);
      const bool split = shape.order == PipelineOrder::kZeroBubbleH1;
      EXPECT_EQ(seen.size(), static_cast<size_t>(shape.chunks * (split ? 3 : 2))) << text(shape);
      std::vector<int64_t> all(static_cast<size_t>(shape.micro_batches));
      for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
      // In order of micro-batches, so that gradients are summed in one process's order.
      for (const auto& [key, micro_batches] : seen) EXPECT_EQ(micro_batches, all) << text(shape);
    }
  }
}

// `simulate` throws on a deadlock; here its result is checked against the dependencies by hand.
TEST(Schedule, DependenciesHoldWithoutADeadlock) {
  for (const auto& shape : all_shapes()) {
    const auto run = simulate(
        shape, {.forward = 1, .backward_input = 1.5, .backward_weight = 0.7, .transfer = 0.1});
    std::map<std::tuple<int64_t, int64_t, bool>, std::pair<double, double>> when;
    for (size_t rank = 0; rank < run.slots.size(); ++rank) {
      for (const auto& done : run.slots[rank]) {
        if (done.slot.kind == SlotKind::kBackwardWeight) continue;
        const int64_t stage = done.slot.chunk * shape.stages + static_cast<int64_t>(rank);
        when[{stage, done.slot.micro_batch, done.slot.kind != SlotKind::kForward}] = {done.begin,
                                                                                      done.end};
      }
    }
    const int64_t last = shape.virtual_stages() - 1;
    for (const auto& [key, time] : when) {
      const auto [stage, i, backward] = key;
      if (!backward && stage > 0) {
        EXPECT_GE(time.first, when.at({stage - 1, i, false}).second) << text(shape);
      } else if (backward) {
        EXPECT_GE(time.first, when.at({stage, i, false}).second) << text(shape);
        if (stage < last) {
          EXPECT_GE(time.first, when.at({stage + 1, i, true}).second) << text(shape);
        }
      }
    }
  }
}

// Messages between two ranks in one direction must be consumed in the order they are sent.
TEST(Schedule, MessagesOfANeighbourArriveInTheOrderTheyAreAwaited) {
  for (const auto& shape : all_shapes()) {
    for (int64_t rank = 0; rank < shape.stages; ++rank) {
      const int64_t next = (rank + 1) % shape.stages;
      std::vector<std::pair<int64_t, int64_t>> sent, awaited;  // (micro-batch, virtual stage)
      for (const auto& slot : stage_schedule(shape, rank)) {
        const int64_t to = slot.chunk * shape.stages + rank + 1;
        if (slot.kind == SlotKind::kForward && to < shape.virtual_stages())
          sent.emplace_back(slot.micro_batch, to);
      }
      for (const auto& slot : stage_schedule(shape, next)) {
        const int64_t at = slot.chunk * shape.stages + next;
        if (slot.kind == SlotKind::kForward && at > 0) awaited.emplace_back(slot.micro_batch, at);
      }
      EXPECT_EQ(sent, awaited) << text(shape);
    }
  }
}

TEST(Schedule, ActivationsInFlightAreBounded) {
  for (const auto& shape : all_shapes()) {
    const auto peaks = simulate(shape, kSpecTimes).peak_in_flight;
    for (int64_t rank = 0; rank < shape.stages; ++rank) {
      const int64_t total = shape.micro_batches * shape.chunks, behind = shape.stages - rank - 1;
      int64_t bound = std::min(behind + 1, total);
      if (shape.chunks > 1)
        bound = std::min(2 * behind + (shape.chunks - 1) * shape.group_size() + 1, total);
      if (shape.order == PipelineOrder::kZeroBubbleH1) bound = std::min(shape.stages, total);
      EXPECT_EQ(peaks[static_cast<size_t>(rank)], bound) << text(shape) << " rank " << rank;
    }
  }
}

TEST(Schedule, BubbleEqualsTheFormula) {
  for (const auto& shape : all_shapes()) {
    // A last group that is not whole costs more: docs/spec/parallelism.md, 4.3.
    if (shape.chunks > 1 && shape.micro_batches % shape.group_size() != 0) continue;
    for (const auto& times :
         {kSpecTimes, SlotTimes{.forward = 1, .backward_input = 1.25, .backward_weight = 0.75}}) {
      if (shape.order == PipelineOrder::kZeroBubbleH1 && shape.micro_batches < shape.stages)
        continue;  // too few micro-batches to put the weight gradients behind
      EXPECT_NEAR(simulate(shape, times).bubble, bubble_formula(shape, times), 1e-9) << text(shape);
    }
  }
}

// The table of docs/spec/parallelism.md, 4.3: F = 1, B = 2.
// A stage of vision layers has nothing to do in a step without pictures.
TEST(Schedule, AStageWithoutWorkIsNoBubble) {
  const PipelineShape shape{.stages = 2, .micro_batches = 4};
  const SlotTimes none{.forward = 0, .backward_input = 0, .backward_weight = 0};
  const auto simulated = simulate(shape, std::vector{none, kSpecTimes});
  EXPECT_EQ(simulated.makespan, 12);
  EXPECT_EQ(simulated.bubble, 0);
}

TEST(Schedule, SpecTable) {
  struct Row {
    int64_t p, m, v;
    double bubble;
    std::vector<int64_t> peaks;
  };
  for (const auto& [p, m, v, bubble, peaks] :
       {Row{2, 4, 1, 0.25, {2, 1}}, Row{4, 8, 1, 0.375, {4, 3, 2, 1}},
        Row{4, 8, 2, 0.1875, {11, 9, 7, 5}}, Row{4, 4, 2, 0.375, {8, 8, 7, 5}},
        Row{2, 4, 2, 0.125, {5, 3}}, Row{4, 8, 3, 0.125, {15, 13, 11, 9}},
        Row{4, 16, 4, 0.0469, {19, 17, 15, 13}}, Row{3, 6, 2, 0.1667, {8, 6, 4}},
        Row{4, 6, 2, 0.528, {11, 9, 7, 5}}}) {
    const auto run = simulate({p, v, m}, kSpecTimes);
    EXPECT_NEAR(run.bubble, bubble, 1e-3) << p << " " << m << " " << v;
    EXPECT_EQ(run.peak_in_flight, peaks) << p << " " << m << " " << v;
  }
}

std::string list_text(const SlotList& list) {
  std::string text;
  for (const auto& slot : list) {
    text += slot.kind == SlotKind::kForward          ? " F"
            : slot.kind == SlotKind::kBackwardInput  ? " I"
            : slot.kind == SlotKind::kBackwardWeight ? " W"
                                                     : " B";
    text += std::to_string(slot.micro_batch) + "." + std::to_string(slot.chunk);
  }
  return text.substr(1);
}

TEST(Schedule, WrittenOutInTheSpec) {
  EXPECT_EQ(list_text(stage_schedule({2, 2, 4}, 0)),
            "F0.0 F1.0 F0.1 F1.1 F2.0 B0.1 F3.0 B1.1 F2.1 B0.0 F3.1 B1.0 B2.1 B3.1 B2.0 B3.0");
  EXPECT_EQ(list_text(stage_schedule({2, 2, 4}, 1)),
            "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 F3.1 B3.1 B2.0 B3.0");
  EXPECT_EQ(list_text(stage_schedule({4, 1, 6}, 1)),
            "F0.0 F1.0 F2.0 B0.0 F3.0 B1.0 F4.0 B2.0 F5.0 B3.0 B4.0 B5.0");
  const PipelineShape zero{3, 1, 4, 0, PipelineOrder::kZeroBubbleH1};
  EXPECT_EQ(list_text(stage_schedule(zero, 2)),
            "F0.0 I0.0 F1.0 I1.0 F2.0 I2.0 W0.0 F3.0 I3.0 W1.0 W2.0 W3.0");
}

TEST(Schedule, ADeadlockIsFound) {
  const PipelineShape shape{2, 1, 2};
  auto lists = std::vector{stage_schedule(shape, 0), stage_schedule(shape, 1)};
  // Rank 0 wants the gradient of a micro-batch that it has not sent yet.
  std::swap(lists[0][1], lists[0][3]);
  std::swap(lists[0][0], lists[0][1]);
  try {
    simulate(shape, lists, kSpecTimes);
    FAIL() << "no deadlock was found";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 0 waits for backward of micro-batch 1, chunk 0"));
  }
}

TEST(Schedule, RulesAreReportedTogether) {
  Problems problems;
  validate({4, 2, 6, 0, PipelineOrder::kZeroBubbleH1}, problems);
  EXPECT_THAT(
      problems.messages(),
      ElementsAre(HasSubstr("\"zb_h1\" needs parallel.virtual = 1, got 2"),
                  HasSubstr("micro-batches (6) to be a multiple of parallel.pipeline (4)")));
  Problems alone;
  validate({1, 3, 6}, alone);
  EXPECT_THAT(alone.messages(),
              ElementsAre(HasSubstr("parallel.virtual = 3 needs parallel.pipeline > 1, got 1")));
  Problems fine;
  validate({4, 2, 6, 6}, fine);
  EXPECT_TRUE(fine.empty());
}

}  // namespace
}  // namespace triptych

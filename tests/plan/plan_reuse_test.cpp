// What a plan takes over instead of running it: a rank from one that runs the same program, a stage
// from one with the same layers, a long step from two short ones. Each is compared with its own
// run.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <ranges>
#include <sstream>

#include "base/format.h"
#include "plan/run_plan.h"
#include "planned_qwen.h"
#include "support/scratch.h"
#include "train/run_layout.h"
#include "train/run_setup.h"

namespace triptych {
namespace {

constexpr const char* kRunFile = R"(
output = "run"
[model]
path = "model"
weights = "random"
[[data.train]]
path = "unused.jsonl"
[data]
max_length = 96
[train]
steps = 2
)";

class PlanReuse : public testing::Test {
 protected:
  PlanReuse() {
    write_medium_qwen(folder_ / "model", /*tied=*/false);
    write_file_atomically(folder_ / "run.toml", kRunFile);
  }

  /// @param set  assignments, parted by spaces
  RunOptions read(const std::string& set) const {
    std::vector<std::string> words;
    std::istringstream in(set);
    for (std::string word; in >> word;) words.push_back(word);
    return read_run_options(
               {.file = folder_ / "run.toml", .environment = nullptr, .assignments = words})
        .options;
  }

 private:
  Scratch folder_;
};

/// By group and operation: ranks, calls and bytes, but not which ranks.
std::vector<std::array<int64_t, 3>> amounts(const TrafficTable& table) {
  std::vector<std::array<int64_t, 3>> all;
  for (const auto& [key, t] : table) all.push_back({t.ranks, t.calls, t.bytes});
  return all;
}

/// All but what depends on how many micro-batches a rank has in flight.
void expect_same_program(const RankPlan& reused, const RankPlan& own, const std::string& what) {
  EXPECT_EQ(reused.rank, own.rank) << what;
  EXPECT_EQ(reused.place, own.place) << what;
  EXPECT_TRUE(std::ranges::equal(std::views::keys(reused.traffic), std::views::keys(own.traffic)))
      << what;
  EXPECT_EQ(amounts(reused.traffic), amounts(own.traffic)) << what;
  EXPECT_EQ(reused.parameters, own.parameters) << what;
  EXPECT_EQ(reused.state_bytes, own.state_bytes) << what;
  EXPECT_EQ(reused.host_state_bytes, own.host_state_bytes) << what;
  EXPECT_EQ(reused.offloaded_bytes, own.offloaded_bytes) << what;
  EXPECT_EQ(reused.made_bytes, own.made_bytes) << what;
  EXPECT_EQ(reused.made_tensors, own.made_tensors) << what;
  EXPECT_EQ(reused.start_bytes, own.start_bytes) << what;
  ASSERT_EQ(reused.chunks.size(), own.chunks.size()) << what;
  for (size_t i = 0; i < own.chunks.size(); ++i) EXPECT_EQ(reused.chunks[i], own.chunks[i]) << what;
}

TEST_F(PlanReuse, ARankIsWhatItIsByItself) {
  struct Layout {
    int64_t processes;
    std::string set;
  };
  for (const auto& [processes, set] :
       {Layout{8, "train.global_batch=4 parallel.tensor=2 parallel.pipeline=2 parallel.zero=2"},
        Layout{8, "train.global_batch=4 parallel.context=2 parallel.zero=3 parallel.zero_group=2"},
        // above 8 processes tensor ranks as well
        Layout{16,
               "train.global_batch=8 parallel.tensor=2 parallel.sequence=true "
               "parallel.pipeline=2"}}) {
    const auto options = read(set);
    const auto all = plan_run(options, processes);
    ASSERT_EQ(static_cast<int64_t>(all.ranks.size()), processes);
    for (const auto& reused : all.ranks) {
      const auto own = plan_run(options, processes, reused.rank).ranks.front();
      const auto what = fmt::format("{}, rank {}", set, reused.rank);
      if (processes <= 8 || reused.place[MeshDim::kTensor] == 0) {
        expect_same_program(reused, own, what);
        EXPECT_EQ(reused.memory.bytes, own.memory.bytes) << what;
        continue;
      }
      // A tensor rank may have a token or a word less than the first one, for which it is taken.
      EXPECT_EQ(amounts(reused.traffic), amounts(own.traffic)) << what;
      EXPECT_EQ(reused.parameters, own.parameters) << what;
      EXPECT_GE(reused.total_bytes(), own.total_bytes()) << what;
      EXPECT_NEAR(
          static_cast<double>(own.total_bytes()) / static_cast<double>(reused.total_bytes()), 1,
          0.01)
          << what;
    }
  }
}

// An inner stage that is like one before it is taken for that, which has more micro-batches in
// flight: what it needs is never more, and the fullest rank stays the same.
TEST_F(PlanReuse, AStageIsWhatItIsByItself) {
  const std::string five =
      "parallel.pipeline=5 parallel.vision_layers=[4,0,0,0,0] parallel.text_layers=[1,1,1,1,2] ";
  struct Layout {
    std::string set;
    size_t less;  ///< stages that need less by themselves than those that they are taken for
  };
  for (const auto& [set, expected] :
       {Layout{five, 2}, Layout{five + "parallel.schedule=zb_h1", 2},
        Layout{five + "recompute.policy=full recompute.layers=[1,1,0,1,1]", 1},
        Layout{five + R"(model.freeze=["model.layers.2.*"])", 1},
        Layout{five + "parallel.zero=3 parallel.tensor=2", 2},
        Layout{"parallel.pipeline=4 parallel.virtual=2 "
               "parallel.vision_layers=[[4,0,0,0],[0,0,0,0]] "
               "parallel.text_layers=[[0,1,1,1],[1,1,1,0]]",
               0}}) {
    const auto options = read(set + " train.global_batch=16");
    const int64_t processes = 2 * options.parallel.pipeline * options.parallel.tensor;
    const auto stages = plan_stages(options, processes);
    ASSERT_EQ(static_cast<int64_t>(stages.ranks.size()), options.parallel.pipeline);
    int64_t most = 0, most_by_itself = 0;
    size_t less = 0;
    for (const auto& stage : stages.ranks) {
      const auto own = plan_run(options, processes, stage.rank).ranks.front();
      expect_same_program(stage, own, fmt::format("{}, rank {}", set, stage.rank));
      EXPECT_GE(stage.total_bytes(), own.total_bytes()) << set << ", rank " << stage.rank;
      less += stage.total_bytes() > own.total_bytes();
      most = std::max(most, stage.most_bytes());
      most_by_itself = std::max(most_by_itself, own.most_bytes());
    }
    EXPECT_EQ(most, most_by_itself) << set;
    EXPECT_EQ(less, expected) << set;  // were none taken over, this would compare nothing
  }
}

TEST_F(PlanReuse, LongStepsFollowFromShortOnes) {
  struct Layout {
    std::string set;
    size_t count;  // of micro-batches; a whole number of groups where chunks interleave
  };
  for (const auto& [set, count] :
       {Layout{"parallel.pipeline=1", 11}, Layout{"parallel.pipeline=2", 11},
        Layout{"parallel.pipeline=2 parallel.virtual=2", 10},
        Layout{"parallel.pipeline=2 parallel.schedule=zb_h1", 11},
        Layout{"parallel.pipeline=2 parallel.zero=2", 11},
        Layout{"parallel.pipeline=2 parallel.zero=3", 11}}) {
    const auto options =
        without_weights(read(set + fmt::format(" train.global_batch={}", 2 * count)));
    const int64_t processes = 2 * options.parallel.pipeline;
    const auto mesh = check_layout(options, processes).mesh;
    const auto family = read_family(model_request(options));
    const auto batch = typical_micro_batch(options, *family);
    const auto run = plan_rank(options, mesh, processes, 0, std::vector<MicroBatch>(count, batch));
    const auto followed =
        plan_rank(options, mesh, processes, 0, batch, static_cast<int64_t>(count));
    EXPECT_EQ(run.memory.bytes, followed.memory.bytes) << set;
    EXPECT_EQ(run.traffic, followed.traffic) << set;
  }
}

// Of a long step over unlike rows a part is run: calls are exact, bytes and work near.
TEST_F(PlanReuse, LongStepsFollowFromSomeOfTheirMicroBatches) {
  constexpr size_t kCount = 24;
  for (const std::string set :
       {"parallel.zero=2", "parallel.pipeline=2", "parallel.pipeline=2 parallel.virtual=2"}) {
    const auto options =
        without_weights(read(set + fmt::format(" train.global_batch={}", 2 * kCount)));
    const int64_t processes = 2 * options.parallel.pipeline;
    const auto mesh = check_layout(options, processes).mesh;
    const auto family = read_family(model_request(options));
    std::vector<MicroBatch> batches;
    for (size_t i = 0; i < kCount; ++i)
      batches.push_back({.rows = {family->typical_row(40 + static_cast<int64_t>(i * 29 % 56))}});
    const auto run = plan_rank(options, mesh, processes, 0, batches);
    const auto part = plan_step(options, mesh, processes, 0, batches, 8, /*most_run=*/6);
    ASSERT_EQ(run.traffic.size(), part.traffic.size()) << set;
    for (const auto& [key, traffic] : run.traffic) {
      const auto& other = part.traffic.at(key);
      EXPECT_EQ(other.calls, traffic.calls) << set << ", " << key.first << " " << key.second;
      // The mean of six of 24 lengths is not exactly that of all.
      EXPECT_NEAR(static_cast<double>(other.bytes) / static_cast<double>(traffic.bytes), 1, 0.05)
          << set << ", " << key.first << " " << key.second;
    }
    EXPECT_NEAR(static_cast<double>(part.made_bytes) / static_cast<double>(run.made_bytes), 1, 0.05)
        << set;
    for (size_t c = 0; c < run.chunks.size(); ++c)
      EXPECT_NEAR(part.chunks[c].forward / run.chunks[c].forward, 1, 0.05) << set;
    EXPECT_EQ(plan_step(options, mesh, processes, 0, batches, 8, 64).traffic, run.traffic) << set;
  }
}

}  // namespace
}  // namespace triptych

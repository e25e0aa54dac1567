// Plans that go by the run's own data, against real runs that train on them: the exchanges of the
// first step must be what was planned, call by call and byte by byte, and the most memory in
// tensors over all steps that were looked at within 10 %.

#include <gmock/gmock.h>

#include <sstream>

#include "base/files.h"
#include "base/format.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_ledger.h"
#include "parallel/launch_environment.h"
#include "plan/planned_data.h"
#include "plan/run_plan.h"
#include "planned_steps.h"
#include "ranks.h"
#include "support/scratch.h"
#include "train/run_data.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

// Two rows on each rank, four in a pipeline, are set by the case.
constexpr const char* kRunFile = R"(
output = "{0}/run"
seed = 3
threads = 1
[model]
path = "{0}/model"
weights = "random"
precision = "bf16"
[[data.train]]
path = "{0}/train.jsonl"
[data]
max_length = 512
workers = 1
[train]
steps = 3
global_batch = 2
micro_batch = 1
[optimizer]
lr = 1e-3
[log]
tensorboard = false
)";

int train_scenario(const Json& config) {
  const auto options = read_options(config);
  const auto processor = make_run_processor(options);
  const auto dataset = open_dataset(options.data.train, {});
  std::optional<Loader> loader;
  return run_planned_steps(
      config, options.train.steps, 1, [&](ProcessContext& process) -> MakeBatches {
        loader.emplace(dataset, *processor, loader_options(options.data),
                       static_cast<uint64_t>(options.seed),
                       training_layout(options, process.coordinates()[MeshDim::kData],
                                       process.mesh().size(MeshDim::kData)));
        return [&](int64_t) { return loader->next_step().micro_batches; };
      });
}

struct Case {
  std::string name;
  int processes = 1;
  std::string set;
  bool pictures = true;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class PlannedData : public testing::TestWithParam<Case> {};

Json config_of(const Case& c, const Scratch& folder) {
  write_planned_run(folder.path(), {.pictures = c.pictures});
  write_file_atomically(folder / "run.toml", fmt::format(kRunFile, folder.path().string()));
  Json set = Json::array();
  std::istringstream words(c.set);
  for (std::string word; words >> word;) set.push_back(word);
  return {{"folder", folder.path().string()}, {"set", set}};
}

TEST_P(PlannedData, IsWhatARealRunTakes) {
  const auto& c = GetParam();
  const Scratch folder;
  const auto config = config_of(c, folder);
  const auto started = testing_ranks::run_ranks(c.processes, "train", config, 120);
  for (const auto& end : started.ranks) ASSERT_EQ(end.status, 0) << end.output;

  const auto options = read_options(config);
  const auto data = read_plan_data(options, 1 << 20);
  ASSERT_EQ(data.summary.steps, options.train.steps);  // what is compared is what was looked at
  const auto plan = plan_run(options, c.processes, {}, 8, &data);
  ASSERT_EQ(plan.ranks.size(), c.processes);
  for (const auto& rank : plan.ranks) {
    const auto real = read_json(folder / fmt::format("rank_{}.json", rank.rank));
    Json planned = Json::array();
    for (const auto& [key, t] : rank.traffic)
      planned.push_back({key.first, key.second, t.ranks, t.calls, t.bytes});
    EXPECT_EQ(planned, real.at("traffic")) << "rank " << rank.rank;
    const auto measured = real.at("peak").get<double>();
    const auto bytes = static_cast<double>(rank.total_bytes());
    fmt::print("{:<36} rank {}: planned {:.2f} MiB, measured {:.2f} MiB, {:+.1f} %\n", c.name,
               rank.rank, bytes / 1048576, measured / 1048576, 100 * (bytes / measured - 1));
    EXPECT_NEAR(bytes / measured, 1, 0.1) << "rank " << rank.rank;
  }
}

const std::string kFour = "train.global_batch=4 ",
                  kPp = "parallel.pipeline=2 train.global_batch=4 ";

INSTANTIATE_TEST_SUITE_P(
    Layouts, PlannedData,
    testing::Values(Case{"one process", 1, ""}, Case{"one sample a row", 1, "data.packing=false"},
                    Case{"two rows a micro-batch", 1, "train.micro_batch=2"},
                    Case{"text alone", 1, "", false},
                    Case{"text alone, data 2, zero 3", 2, kFour + "parallel.zero=3", false},
                    Case{"data 2", 2, kFour},
                    Case{"data 2, balanced", 2, kFour + "parallel.balance_samples=true"},
                    Case{"data 2, zero 2", 2, kFour + "parallel.zero=2"},
                    Case{"tensor 2, sequence", 2, "parallel.tensor=2 parallel.sequence=true"},
                    Case{"pipeline 2", 2, kPp},
                    Case{"pipeline 2, zero bubble, data 2", 4,
                         "parallel.pipeline=2 train.global_batch=8 parallel.schedule=zb_h1"},
                    Case{"ulysses 2", 2, "parallel.context=2"},
                    Case{"ring 2", 2, "parallel.context=2 parallel.context_algorithm=ring"},
                    Case{"ring 2, tensor 2, recompute", 4,
                         "parallel.tensor=2 parallel.sequence=true parallel.context=2 "
                         "parallel.context_algorithm=ring recompute.policy=full"}),
    [](const auto& info) {
      std::string name;
      for (const char x : info.param.name) name += std::isalnum(x) != 0 ? x : '_';
      return name;
    });

/// Lengths, labels, segments and picture sizes; the pixels are the loader's alone.
void expect_same(const MicroBatch& planned, const MicroBatch& loaded, const std::string& what) {
  ASSERT_EQ(planned.rows.size(), loaded.rows.size()) << what;
  for (size_t r = 0; r < planned.rows.size(); ++r) {
    const auto &mine = planned.rows[r].samples, &theirs = loaded.rows[r].samples;
    ASSERT_EQ(mine.size(), theirs.size()) << what << ", row " << r;
    for (size_t i = 0; i < mine.size(); ++i) {
      EXPECT_EQ(mine[i].index, theirs[i].index) << what;
      EXPECT_EQ(mine[i].tokens, theirs[i].tokens) << what;
      EXPECT_EQ(mine[i].labels, theirs[i].labels) << what;
      ASSERT_EQ(mine[i].media.size(), theirs[i].media.size()) << what;
      for (size_t m = 0; m < mine[i].media.size(); ++m) {
        EXPECT_EQ(mine[i].media[m].grid, theirs[i].media[m].grid) << what;
        EXPECT_TRUE(mine[i].media[m].rows.empty()) << what;
        EXPECT_FALSE(theirs[i].media[m].rows.empty()) << what;
      }
    }
  }
}

TEST(PlannedRows, AreThoseOfTheLoader) {
  const Scratch folder;
  for (const auto& [set, data_ranks] : std::vector<std::pair<std::string, int64_t>>{
           {"seed=1 train.global_batch=4", 1},
           {"seed=1 train.global_batch=12 train.micro_batch=2", 2},
           {"seed=2 train.global_batch=12 train.micro_batch=2 parallel.balance_samples=true", 3},
           {"seed=9 train.global_batch=8 data.packing=false", 4},
           {"seed=9 train.global_batch=8 data.shuffle=false", 2}}) {
    const auto options = read_options(config_of({.name = "", .set = set}, folder));
    const auto data = read_plan_data(options, 64);
    const auto family = read_family(model_request(options));
    const PlannedRows rows(options, *family, data_ranks, &data);
    const auto processor = make_run_processor(options);
    const auto dataset = open_dataset(options.data.train, {});
    for (int64_t rank = 0; rank < data_ranks; ++rank) {
      Loader loader(dataset, *processor, loader_options(options.data),
                    static_cast<uint64_t>(options.seed),
                    training_layout(options, rank, data_ranks));
      const auto loaded = loader.next_step().micro_batches;
      const auto planned = rows.first_step(rank);
      ASSERT_EQ(planned.size(), loaded.size()) << set;
      for (size_t i = 0; i < planned.size(); ++i)
        expect_same(planned[i], loaded[i], fmt::format("{}, rank {}, {}", set, rank, i));
    }
  }
}

// Whatever a step of any rank takes, one of the chosen micro-batches has at least as much of it.
TEST(PlannedRows, TheFullestCoverAllOthers) {
  const Scratch folder;
  const auto options =
      read_options(config_of({.name = "", .set = "data.packing=false train.steps=20"}, folder));
  const auto data = read_plan_data(options, 40);
  const auto family = read_family(model_request(options));
  const PlannedRows rows(options, *family, 2, &data);
  const auto fullest = rows.fullest(*family);
  ASSERT_LE(fullest.size(), 8);
  EXPECT_EQ(data.summary.steps, 20);  // two samples each
  for (const auto& step : data.rows.steps) {
    for (const auto& row : step) {
      const auto size = family->flow_size({.rows = {row}});
      EXPECT_TRUE(std::ranges::any_of(fullest,
                                      [&](const MicroBatch& batch) {
                                        const auto most = family->flow_size(batch);
                                        return most.tokens >= size.tokens &&
                                               most.patches >= size.patches &&
                                               most.label_tokens >= size.label_tokens;
                                      }))
          << size.tokens << " tokens, " << size.patches << " patches, " << size.label_tokens
          << " labels";
    }
  }
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::install_cpu_allocator();
  triptych::testing_ranks::add_scenario("train", triptych::train_scenario);
  return triptych::testing_ranks::run_main(argc, argv);
}

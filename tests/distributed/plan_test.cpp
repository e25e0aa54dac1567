// The planner against real runs: what each rank exchanges must be what was planned, call by call
// and byte by byte, and the most memory in tensors within 10 %.

#include <gmock/gmock.h>

#include <map>
#include <sstream>

#include "base/files.h"
#include "base/format.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_ledger.h"
#include "parallel/launch_environment.h"
#include "plan/planned_qwen.h"
#include "plan/run_plan.h"
#include "planned_steps.h"
#include "ranks.h"
#include "support/scratch.h"
#include "tiny_qwen.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRunFile = R"(
output = "run"
seed = 3
threads = 1
[model]
path = "model"
weights = "random"
precision = "bf16"
[[data.train]]
path = "unused.jsonl"
[data]
max_length = 768
[train]
steps = 2
global_batch = 8
micro_batch = 1
[optimizer]
lr = 1e-3
[log]
tensorboard = false
)";

enum class Size {
  kTiny,       ///< of tiny_qwen.h: rows of varying length
  kMedium,     ///< of planned_qwen.h: activations and weights both count
  kBenchmark,  ///< 0.6 billion parameters, the default shape of benchmarks/step_qwen2_5_vl
};

void write_benchmark_qwen(const fs::path& folder) {
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  auto& vision = options.vision;
  vision.depth = 8;
  vision.out_hidden_size = 1024;
  vision.fullatt_block_indexes = {7};
  auto& text = options.text;
  text.hidden_size = 1024;
  text.intermediate_size = 4096;
  text.num_hidden_layers = 8;
  text.num_attention_heads = 8;
  text.num_key_value_heads = 2;
  text.tie_word_embeddings = false;
  write_qwen(folder, options);
}

/// What data rank `data_rank` reads in a step: rows of the tiny stream, very unequal, or full ones.
std::vector<MicroBatch> micro_batches_of(const RunOptions& options, const Mesh& mesh,
                                         int64_t data_rank, const Json& config) {
  const bool tiny = config.at("tiny").get<bool>();
  if (config.at("same").get<bool>()) data_rank = 0;
  const BatchPlan plan{options.train.global_batch, options.train.micro_batch,
                       mesh.size(MeshDim::kData)};
  const auto family = read_family(model_request(options));
  std::vector<MicroBatch> batches(static_cast<size_t>(plan.micro_batches()));
  for (int64_t m = 0; m < plan.micro_batches(); ++m) {
    auto& rows = batches[static_cast<size_t>(m)].rows;
    if (tiny) {
      rows.push_back(tiny_row(plan.sample({data_rank, m, 0})));
      continue;
    }
    rows = typical_micro_batch(options, *family).rows;
    for (auto& row : rows) {
      for (auto& sample : row.samples) {
        for (auto& medium : sample.media)
          medium.rows.assign(static_cast<size_t>(medium.grid.patches() * 1176), 0.1F);
      }
    }
  }
  return batches;
}

int plan_rank_scenario(const Json& config) {
  // The most of both steps is what a run needs; the second is like those that follow.
  return run_planned_steps(config, 2, 2, [&](ProcessContext& process) -> MakeBatches {
    return [batches = micro_batches_of(read_options(config), process.mesh(),
                                       process.coordinates()[MeshDim::kData], config)](int64_t) {
      return batches;
    };
  });
}

struct Case {
  std::string name;
  int processes = 1;
  std::string set;
  /// Data ranks have the same samples: a rank's plan then knows what the others have.
  bool same_rows = false;
  bool tied = false;  ///< embedding and head are one tensor
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

/// Runs the case and returns its configuration, with a file of each rank in its folder.
Json run_case(const Case& c, const Scratch& folder, Size size) {
  const bool tiny = size == Size::kTiny;
  const auto model = folder / "model";
  if (tiny) {
    fs::create_directories(model);
    write_tiny_qwen(model, {.tied = c.tied});
  } else if (size == Size::kMedium) {
    write_medium_qwen(model, c.tied);
  } else {
    write_benchmark_qwen(model);
  }
  write_file_atomically(folder / "run.toml", kRunFile);
  Json set = Json::array();
  std::istringstream words(c.set);
  for (std::string word; words >> word;) set.push_back(word);
  set.push_back("model.path=" + model.string());
  Json config{{"folder", folder.path().string()}, {"tiny", tiny}, {"same", c.same_rows}};
  config["set"] = set;
  if (size == Size::kMedium) {
    // As many micro-batches as it takes for all that is alive at once; each takes long.
    const auto p = read_options(config).parallel;
    const auto data = c.processes / (p.tensor * p.context * p.pipeline);
    config["set"].push_back(fmt::format("train.global_batch={}", data * (p.pipeline > 1 ? 4 : 2)));
  }
  const auto started =
      testing_ranks::run_ranks(c.processes, "plan", config, size == Size::kBenchmark ? 900 : 120);
  for (const auto& end : started.ranks) EXPECT_EQ(end.status, 0) << end.output;
  return config;
}

class Planned : public testing::TestWithParam<Case> {};

RankPlan plan_of(const Json& config, int processes, int64_t rank) {
  const auto options = without_weights(read_options(config));
  const auto mesh = check_layout(options, processes).mesh;
  const Mesh ranks(processes, mesh);
  return plan_rank(
      options, mesh, processes, rank,
      micro_batches_of(options, ranks, ranks.coordinates(rank)[MeshDim::kData], config));
}

TEST_P(Planned, ExchangesAreThoseOfARealRun) {
  const auto& c = GetParam();
  const Scratch folder;
  const auto config = run_case(c, folder, Size::kTiny);
  for (int64_t rank = 0; rank < c.processes; ++rank) {
    const auto plan = plan_of(config, c.processes, rank);
    Json planned = Json::array();
    for (const auto& [key, t] : plan.traffic)
      planned.push_back({key.first, key.second, t.ranks, t.calls, t.bytes});
    EXPECT_EQ(planned, read_json(folder / fmt::format("rank_{}.json", rank)).at("traffic"))
        << "rank " << rank;
  }
}

void expect_memory_of_a_real_run(const Case& c, Size size) {
  const Scratch folder;
  const auto config = run_case(c, folder, size);
  const Mesh mesh(c.processes, check_layout(read_options(config), c.processes).mesh);
  // Data ranks have the same rows, but not the same share of pictures that they divide among them.
  std::map<std::array<int64_t, kNumMeshDims>, RankPlan> plans;
  for (int64_t rank = 0; rank < c.processes; ++rank) {
    auto place = mesh.coordinates(rank);
    if (!c.same_rows) place[MeshDim::kData] = 0;
    if (!plans.contains(place.at)) plans[place.at] = plan_of(config, c.processes, rank);
    const auto& plan = plans[place.at];
    const auto real = read_json(folder / fmt::format("rank_{}.json", rank));
    const auto measured = real.at("peak").get<double>();
    const auto planned = static_cast<double>(plan.total_bytes());
    fmt::print("{:<28} rank {}: planned {:.2f} MiB, measured {:.2f} MiB, {:+.1f} %\n", c.name, rank,
               planned / 1048576, measured / 1048576, 100 * (planned / measured - 1));
    EXPECT_NEAR(planned / measured, 1, 0.1)
        << c.name << ", rank " << rank << ": planned " << testing::PrintToString(plan.memory.bytes)
        << " parameters, gradients, optimizer, activations, buffers; measured "
        << dump_json(real.at("kinds"));
  }
}

TEST_P(Planned, MemoryIsThatOfARealRun) { expect_memory_of_a_real_run(GetParam(), Size::kMedium); }

class FullPlanned : public testing::TestWithParam<Case> {};

TEST_P(FullPlanned, MemoryIsThatOfARealRun) {
  expect_memory_of_a_real_run(GetParam(), Size::kBenchmark);
}

std::string name_of(const testing::TestParamInfo<Case>& c) {
  std::string name;
  for (const char x : c.param.name) name += std::isalnum(x) != 0 ? x : '_';
  return name;
}

const std::string kSp = "parallel.tensor=2 parallel.sequence=true ";
const std::string kPp = "parallel.pipeline=2 ";

INSTANTIATE_TEST_SUITE_P(
    Layouts, Planned,
    testing::Values(
        Case{"one process", 1, ""}, Case{"one process, fp32", 1, "model.precision=fp32"},
        Case{"one process, recompute", 1, "recompute.policy=full"}, Case{"data 2", 2, ""},
        Case{"data 2, zero 0", 2, "parallel.zero=0"}, Case{"tensor 2", 2, "parallel.tensor=2"},
        Case{"tensor 2, sequence, data 2", 4, kSp},
        Case{
            "tensor 2, lora", 2,
            R"(parallel.tensor=2 model.lora.rank=4 model.lora.dropout=0.2 model.lora.targets=["q_proj","up_proj","down_proj"])"},
        Case{"pipeline 2", 2, kPp}, Case{"pipeline 2, virtual 2", 2, kPp + "parallel.virtual=2"},
        Case{"pipeline 2, zero bubble", 2, kPp + "parallel.schedule=zb_h1"},
        Case{"pipeline 2, frozen vision, data 2", 4, kPp + R"(model.freeze=["vision"])"},
        Case{"ulysses 2", 2, "parallel.context=2"},
        Case{"ring 2", 2, "parallel.context=2 parallel.context_algorithm=ring"},
        Case{"tensor 2, ring 2, recompute", 4,
             kSp + "parallel.context=2 parallel.context_algorithm=ring recompute.policy=full"},
        Case{"hybrid 4", 4,
             "parallel.context=4 parallel.context_algorithm=hybrid parallel.ulysses_degree=2"},
        Case{"dsp vision 2", 2, "parallel.context=2 parallel.vision_context=dsp"},
        Case{"pictures over data 2", 2, "parallel.balance_vision=data", true},
        Case{"pictures over data 2, ring 2", 4,
             "parallel.balance_vision=data parallel.context=2 parallel.context_algorithm=ring",
             true},
        Case{"zero 2", 2, "parallel.zero=2"}, Case{"zero 3", 2, "parallel.zero=3"},
        Case{"zero 3, groups of 2", 4, "parallel.zero=3 parallel.zero_group=2"},
        Case{"zero 2, pipeline 2", 4, kPp + "parallel.zero=2"},
        Case{"zero 3, pipeline 2, zero bubble", 4, kPp + "parallel.zero=3 parallel.schedule=zb_h1"},
        Case{"zero 3, tensor 2", 4, kSp + "parallel.zero=3"},
        Case{"recompute in groups, zero 3", 2,
             "parallel.zero=3 recompute.policy=full recompute.method=uniform recompute.layers=2"},
        Case{"recompute, attention kept", 1, "recompute.policy=full recompute.keep_attention=true"},
        Case{"recompute of pieces", 1,
             R"(recompute.policy=selective recompute.modules=["norm","mlp_act","qkv_rope"])"},
        Case{"recompute of mlp and attention", 1,
             R"(recompute.policy=selective recompute.modules=["mlp","attention"])"},
        Case{"one process, tied head", 1, "", false, true},
        Case{"data 2, zero 2, tied head", 2, "parallel.zero=2", false, true},
        Case{"pipeline 2, tied head", 2, kPp, false, true},
        Case{"offload", 1, "recompute.offload=true recompute.offload_min_bytes=65536"}),
    name_of);

// Two micro-batches of a row on each rank, at the widths that count in real models.
INSTANTIATE_TEST_SUITE_P(
    BenchmarkShape, FullPlanned,
    testing::Values(Case{"0.6 B, one process", 1, "train.global_batch=2"},
                    Case{"0.6 B, fp32", 1, "train.global_batch=2 model.precision=fp32"},
                    Case{"0.6 B, recompute", 1, "train.global_batch=2 recompute.policy=full"},
                    Case{"0.6 B, data 2", 2, "train.global_batch=4"},
                    Case{"0.6 B, data 2, zero 2", 2, "train.global_batch=4 parallel.zero=2"},
                    Case{"0.6 B, data 2, zero 3", 2, "train.global_batch=4 parallel.zero=3"},
                    Case{"0.6 B, tensor 2, sequence", 2, kSp + "train.global_batch=2"},
                    Case{"0.6 B, pipeline 2", 2, kPp + "train.global_batch=2"},
                    Case{
                        "0.6 B, ring 2", 2,
                        "train.global_batch=2 parallel.context=2 parallel.context_algorithm=ring"}),
    name_of);

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::install_cpu_allocator();
  triptych::testing_ranks::add_scenario("plan", triptych::plan_rank_scenario);
  return triptych::testing_ranks::run_main(argc, argv);
}

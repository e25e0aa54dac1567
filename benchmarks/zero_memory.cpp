// Peak memory of a training step over what data-parallel ranks share out (parallel.zero), of a
// model whose parameters outweigh its activations.
//
//   zero_memory [--ranks 4] [--set "parallel.zero_group=2 ..."]

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <sstream>

#include "base/files.h"
#include "base/format.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/launcher.h"
#include "parallel/process_context.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/train_step.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
constexpr double kMiB = 1 << 20;

void write_model(const fs::path& folder) {
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  options.vision.depth = 1;
  options.vision.hidden_size = options.vision.intermediate_size = 64;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {0};
  options.vision.out_hidden_size = options.text.hidden_size = 768;
  options.text.vocab_size = 4096;
  options.text.intermediate_size = 2048;
  options.text.num_hidden_layers = 10;
  options.text.num_attention_heads = 12;
  options.text.num_key_value_heads = 12;
  options.text.mrope_section = {8, 12, 12};
  options.ids = {.image = 4090, .video = 4091, .vision_start = 4092, .vision_end = 4093};
  write_file_atomically(folder / "config.json", dump_json(qwen2_5_vl::make_config(options), 2));
}

MicroBatch one_sample(int64_t tokens) {
  Sample sample;
  for (int64_t i = 0; i < tokens; ++i) {
    sample.tokens.push_back(static_cast<int32_t>(i * 7919 % 4000));
    sample.labels.push_back(sample.tokens.back());
  }
  return {.rows = {{{std::move(sample)}}}};
}

/// One rank: two steps of two micro-batches; rank 0 writes the largest growth of any rank from
/// before its parameters were made, the largest number of elements trained, and the seconds of the
/// second step.
void run_rank(const fs::path& folder, const std::vector<std::string>& set) {
  install_cpu_allocator();
  const auto run =
      read_run_options({.file = folder / "run.toml", .environment = nullptr, .assignments = set});
  const auto& options = run.options;
  ProcessContext process(read_launch_environment(), process_options(options));
  process.set_mesh(check_layout(options, process.world_size()).mesh);
  process.world().barrier();
  const auto before = static_cast<double>(resident_bytes());
  const auto loaded = load_part(process, options, at::kCPU);
  ShardedOptimizer optimizer(loaded.model.parameters, adamw_settings(options.optimizer),
                             sharding_settings(options),
                             optimizer_groups(process, options, loaded));
  const auto stage = Stage::make(process, options, loaded, at::kCPU);
  TrainStep step(loaded, optimizer, process.group({MeshDim::kData}),
                 step_settings(options, loaded, at::kCPU), stage.get());
  const std::vector<MicroBatch> batches{one_sample(64), one_sample(64)};
  for (int64_t s = 1; s <= 2; ++s) step.run(batches, s, 1e-4);
  const auto found = at::tensor({static_cast<double>(peak_resident_bytes()) - before,
                                 static_cast<double>(optimizer.trained_elements())},
                                at::kDouble);
  process.world().all_reduce(found, ReduceOp::kMax);
  if (process.rank() == 0)
    write_file_atomically(folder / "result", fmt::format("{} {}", found[0].item<double>() / kMiB,
                                                         found[1].item<double>()));
  process.close();
}

constexpr const char* kRunFile = R"(
output = "run"
threads = 1
[model]
path = "."
weights = "random"
precision = "bf16"
[[data.train]]
path = "unused.jsonl"
[train]
steps = 2
global_batch = 8
[parallel]
bucket_elements = 4000000
)";

int measure(const std::string& program, int64_t ranks, const std::vector<std::string>& set) {
  const auto folder = fs::temp_directory_path() / fmt::format("zero_memory_{}", ::getpid());
  fs::create_directories(folder);
  write_model(folder);
  write_file_atomically(folder / "run.toml", kRunFile);
  fmt::print("| parallel.zero | MiB a rank | bytes a parameter | of zero 0 |\n");
  fmt::print("| ---: | ---: | ---: | ---: |\n");
  double plain = 0;
  for (int64_t zero = 0; zero <= 3; ++zero) {
    std::vector<std::string> words{program, "--rank", folder.string(),
                                   fmt::format("parallel.zero={}", zero),
                                   fmt::format("train.global_batch={}", 2 * ranks)};
    words.insert(words.end(), set.begin(), set.end());
    const int status = launch_workers({.processes = ranks, .threads = 1}, words);
    if (status != 0) return status;
    std::istringstream result(read_file(folder / "result"));
    double mib = 0, elements = 1;
    result >> mib >> elements;
    if (zero == 0) plain = mib;
    fmt::print("| {} | {:.0f} | {:.1f} | {:.2f} |\n", zero, mib, mib * kMiB / elements,
               mib / plain);
    std::fflush(stdout);
  }
  fs::remove_all(folder);
  return 0;
}

int run(const std::vector<std::string>& words) {
  if (words.size() >= 3 && words[1] == "--rank") {
    run_rank(words[2], {words.begin() + 3, words.end()});
    return 0;
  }
  int64_t ranks = 4;
  std::vector<std::string> set;
  for (size_t i = 1; i + 1 < words.size(); i += 2) {
    if (words[i] == "--ranks") {
      ranks = std::stoll(words[i + 1]);
    } else if (words[i] == "--set") {
      std::istringstream in(words[i + 1]);
      for (std::string word; in >> word;) set.push_back(word);
    } else {
      fail<UsageError>(words[i], " is not known; there are --ranks and --set");
    }
  }
  return measure(words.front(), ranks, set);
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  try {
    return triptych::run({argv, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

// Peak memory of a training step over what data-parallel ranks share out (parallel.zero), of a
// model whose parameters outweigh its activations: by the books, by kind, beside the formula.
//
//   zero_memory [--ranks 4] [--zero 0,1,2,3] [--hidden 768] [--set "parallel.zero_group=2 ..."]
//               [--check true]
//
// With --check the program fails where a rank holds more than the formula and what is in use at a
// time allow. What the formula does not speak of is taken from `zero = 0`, which is then measured
// first, asked for or not.

#include <algorithm>
#include <array>
#include <sstream>

#include "base/files.h"
#include "base/format.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "parallel/process_context.h"
#include "small_model.h"
#include "train/memory_use.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/train_step.h"

namespace triptych::bench {
namespace {

namespace fs = std::filesystem;

/// A decoder layer has 12 hidden^2 elements; the embedding and the head 5.3 each.
SmallSizes sizes_of(int64_t hidden) {
  return {.hidden = hidden,
          .intermediate = hidden * 8 / 3,
          .layers = 10,
          .key_value_heads = hidden / 64,
          .vocabulary = hidden * 16 / 3};
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
)";

/// One rank: two steps of two micro-batches.
void run_rank(const fs::path& file, const fs::path& folder, int64_t vocabulary,
              const std::vector<std::string>& set) {
  install_cpu_allocator();
  const auto run =
      read_run_options({.file = folder / "run.toml", .environment = nullptr, .assignments = set});
  const auto& options = run.options;
  ProcessContext process(read_launch_environment(), process_options(options));
  process.set_mesh(check_layout(options, process.world_size()).mesh);
  process.world().barrier();
  Json result{{"before", static_cast<double>(resident_bytes()) / kMiB}};
  reset_memory_peak();
  const auto loaded = load_counted(process, options, at::kCPU);
  ShardedOptimizer optimizer(loaded.model.parameters, adamw_settings(options.optimizer),
                             sharding_settings(options),
                             optimizer_groups(process, options, loaded));
  const auto stage = Stage::make(process, options, loaded, at::kCPU);
  TrainStep step(loaded, optimizer, process.group({MeshDim::kData}),
                 step_settings(options, loaded, at::kCPU), stage.get());
  trim_cpu_allocator();  // as a run does
  result["elements"] = optimizer.trained_elements();
  result["load"] = to_json(take_peak(process));
  const auto row = small_row({.tokens = 64, .length = 64, .vocabulary = vocabulary});
  const std::vector<MicroBatch> batches{row, row};
  for (const auto* name : {"first", "second"}) {
    step.run(batches, name == std::string("first") ? 1 : 2, 1e-4);
    result[name] = to_json(take_peak(process));
  }
  if (process.rank() == 0) write_file_atomically(file, dump_json(result));
  process.close();
}

std::string shown(double mib) { return fmt::format("{:.0f}", mib); }

/// Bytes an element by kind: parameter, gradient, optimizer state (docs/parallelism.md).
std::array<double, 3> formula(int64_t zero, int64_t ranks) {
  const double share = 1.0 / static_cast<double>(ranks);
  return {zero >= 3 ? 2 * share : 2, zero >= 2 ? 4 * share : 4, zero >= 1 ? 10 * share : 10};
}

/// What stands beside the formula for a while, MiB: two buckets that are scattered and the one that
/// fills; a layer that runs and the one fetched ahead; Gloo's copy of what it gathers.
double in_use(int64_t zero, int64_t hidden) {
  // elements of a decoder layer; a bucket and one parameter beyond its size hold about as many
  const double unit = 12.4 * static_cast<double>(hidden * hidden);
  const double bytes = (zero >= 2 ? 3 * 4 : 0) + (zero >= 3 ? 2 * 2 : 0) + (zero >= 1 ? 2 : 0);
  return bytes * unit / kMiB;
}

void measure(const std::string& program, const Flags& flags) {
  const auto ranks = std::stoll(flags.at("--ranks"));
  const auto hidden = std::stoll(flags.at("--hidden"));
  const auto sizes = sizes_of(hidden);
  const auto folder = fs::temp_directory_path() / fmt::format("zero_memory_{}", ::getpid());
  fs::create_directories(folder);
  write_file_atomically(folder / "config.json", dump_json(small_config(sizes), 2));
  write_file_atomically(folder / "run.toml", kRunFile);
  fmt::print("{} ranks; MiB of the busiest one; in brackets what the formula says\n\n", ranks);
  print_head({"zero", "load", "first step", "second step", "of it parameter", "gradient",
              "optimizer state", "activation, temporary, input", "other", "sum of the formula",
              "resident, growth"});
  const bool check = flags.at("--check") == "true";
  auto levels = read_numbers(flags.at("--zero"));
  if (check) {
    std::erase(levels, 0);
    levels.insert(levels.begin(), 0);
  }
  double rest = 0;  // of zero = 0: activations, and what is on its way
  std::string problems;
  for (const auto zero : levels) {
    std::vector<std::string> words{
        folder.string(), std::to_string(sizes.vocabulary), fmt::format("parallel.zero={}", zero),
        fmt::format("train.global_batch={}", 2 * ranks),
        fmt::format("parallel.bucket_elements={}", 4000000 * hidden * hidden / (768 * 768))};
    std::istringstream set(flags.at("--set"));
    for (std::string word; set >> word;) words.push_back(word);
    const auto result = run_ranks(program, ranks, words);
    const auto elements = result.at("elements").get<double>() / kMiB;
    const auto first = peak_from(result.at("first")), second = peak_from(result.at("second"));
    const auto say = formula(zero, ranks);
    const auto beside = [&](MemoryKind kind, double bytes) {
      return fmt::format("{:.0f} ({:.0f})", second.of({kind}), bytes * elements);
    };
    const double sum = (say[0] + say[1] + say[2]) * elements;
    const double most = std::max({peak_from(result.at("load")).total, first.total, second.total});
    if (zero == 0)
      rest = most - sum;
    else if (most > sum + in_use(zero, hidden) + rest)
      problems += fmt::format("\n  zero {}: {:.0f} MiB, at most {:.0f} + {:.0f} in use + {:.0f}",
                              zero, most, sum, in_use(zero, hidden), rest);
    using enum MemoryKind;
    print_row({fmt::format("{}", zero), shown(peak_from(result.at("load")).total),
               shown(first.total), shown(second.total), beside(kParameter, say[0]),
               beside(kGradient, say[1]), beside(kOptimizerState, say[2]),
               shown(second.of({kActivation, kTemporary, kInput})),
               shown(second.of({kCommunication, kCheckpoint, kUnknown})), shown(sum),
               shown(second.resident - result.at("before").get<double>())});
  }
  fs::remove_all(folder);
  require(!check || problems.empty(), "too much memory:", problems);
}

int run(const std::vector<std::string>& words) {
  if (words.size() >= 5 && words[1] == "--rank") {
    run_rank(words[2], words[3], std::stoll(words[4]), {words.begin() + 5, words.end()});
  } else {
    measure(words.front(), read_flags(words, {{"--ranks", "4"},
                                              {"--zero", "0,1,2,3"},
                                              {"--hidden", "768"},
                                              {"--set", ""},
                                              {"--check", "false"}}));
  }
  return 0;
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) {
  return triptych::bench::guarded_main(argc, argv, triptych::bench::run);
}

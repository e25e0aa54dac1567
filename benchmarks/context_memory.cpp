// Peak memory of a training step of one long sample over its length and the number of context
// ranks: what a rank holds must fall to 1 / ranks, so the longest sequence that fits grows with
// them.
//
//   context_memory [--algorithm ring|ulysses] [--ranks 1,2,4] [--tokens 4096,8192,16384,32768]

#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "base/files.h"
#include "base/format.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/launcher.h"
#include "parallel/layout_rules.h"
#include "parallel/model_groups.h"
#include "parallel/options.h"
#include "parallel/process_context.h"
#include "train/family.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

constexpr double kMiB = 1 << 20;

/// Large enough that activations outweigh what a process needs anyway.
std::unique_ptr<Family> make_model() {
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  options.vision.depth = 1;
  options.vision.hidden_size = 64;
  options.vision.intermediate_size = 64;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {0};
  options.vision.out_hidden_size = options.text.hidden_size = 512;
  options.text.vocab_size = 2048;
  options.text.intermediate_size = 1408;
  options.text.num_hidden_layers = 4;
  options.text.num_attention_heads = 8;
  options.text.num_key_value_heads = 4;
  options.text.mrope_section = {8, 12, 12};
  options.ids = {.image = 2040, .video = 2041, .vision_start = 2042, .vision_end = 2043};
  return make_family(qwen2_5_vl::make_config(options), "config.json", "", "max_hw");
}

MicroBatch one_sample(int64_t tokens) {
  Sample sample;
  for (int64_t i = 0; i < tokens; ++i) {
    sample.tokens.push_back(static_cast<int32_t>(i * 7919 % 2000));
    sample.labels.push_back(i < tokens / 2 ? static_cast<int32_t>(kIgnoreLabel)
                                           : sample.tokens.back());
  }
  return {.rows = {{{std::move(sample)}}}};
}

/// One rank: forward and backward once; rank 0 writes the largest growth of any rank.
void run_rank(const ParallelOptions& parallel, int64_t tokens, const std::string& result) {
  install_cpu_allocator();
  ProcessContext process(read_launch_environment(), {.threads = 1});
  const auto family = make_model();
  process.set_mesh(
      {.context = parallel.context, .ulysses = ulysses_size(parallel, family->query_heads())});
  const auto groups = model_groups(process, parallel);
  auto model = family->build(at::kBFloat16, groups);
  initialise(model.parameters, 1, at::kCPU);
  process.world().barrier();
  const auto before = static_cast<double>(resident_bytes());
  {
    auto flow = family->make_flow(one_sample(tokens), {},
                                  {.dtype = at::kBFloat16, .with_labels = true, .groups = groups});
    run_layers(model, flow);
    flow.at(family->loss_field()).backward();
  }
  const auto grown = at::tensor({static_cast<double>(peak_resident_bytes()) - before}, at::kDouble);
  process.world().all_reduce(grown, ReduceOp::kMax);
  if (process.rank() == 0)
    write_file_atomically(result, fmt::format("{}", grown.item<double>() / kMiB));
  process.close();
}

std::vector<int64_t> numbers(const std::string& text) {
  std::vector<int64_t> list;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) list.push_back(std::stoll(part));
  return list;
}

int measure(const std::string& program, std::map<std::string, std::string> flags) {
  const auto ranks = numbers(flags["--ranks"]), tokens = numbers(flags["--tokens"]);
  fmt::print("{}; MiB that the busiest rank grows by in a step\n\n| tokens |",
             flags["--algorithm"]);
  for (const auto n : ranks) fmt::print(" {} rank{} |", n, n == 1 ? "" : "s");
  fmt::print("\n| ---: |");
  for (size_t i = 0; i < ranks.size(); ++i) fmt::print(" ---: |");
  std::vector<double> last(ranks.size());
  for (const auto T : tokens) {
    fmt::print("\n| {} |", T);
    for (size_t i = 0; i < ranks.size(); ++i) {
      const std::string file = fmt::format("/tmp/context_memory_{}", ::getpid());
      const std::vector<std::string> words{
          program,           "--rank", flags["--algorithm"], std::to_string(ranks[i]),
          std::to_string(T), file};
      const int status = launch_workers({.processes = ranks[i], .threads = 1}, words);
      if (status != 0) return status;
      last[i] = std::stod(read_file(file));
      std::filesystem::remove(file);
      fmt::print(" {:.0f} |", last[i]);
      std::fflush(stdout);
    }
  }
  fmt::print("\n\nat {} tokens, relative to {} rank(s):", tokens.back(), ranks.front());
  for (size_t i = 0; i < ranks.size(); ++i)
    fmt::print(" {} ranks 1/{:.2f}", ranks[i], last.front() / last[i]);
  fmt::print("\n");
  return 0;
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 6 && words[1] == "--rank") {
    ParallelOptions parallel;
    parallel.context = std::stoll(words[3]);
    parallel.context_algorithm =
        words[2] == "ring" ? ContextAlgorithm::kRing : ContextAlgorithm::kUlysses;
    run_rank(parallel, std::stoll(words[4]), words[5]);
    return 0;
  }
  std::map<std::string, std::string> flags{
      {"--algorithm", "ring"}, {"--ranks", "1,2,4"}, {"--tokens", "4096,8192,16384,32768"}};
  for (size_t i = 1; i + 1 < words.size(); i += 2) {
    require<UsageError>(flags.contains(words[i]), words[i],
                        " is not known; there are --algorithm, --ranks and --tokens");
    flags[words[i]] = words[i + 1];
  }
  return measure(words.front(), flags);
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

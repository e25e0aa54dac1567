// Peak memory of a training step of one long sample over its length and the number of context
// ranks: what a rank holds beside the model falls to 1 / ranks, so the longest sequence that fits
// grows with them.
//
//   context_memory [--algorithm ring|ulysses] [--ranks 1,2,4] [--tokens 2048,4096,8192]
//                  [--budget MiB]
//
// With a budget: also the longest sequence, to 64 tokens a rank, whose step fits it.

#include "base/files.h"
#include "base/format.h"
#include "kernels/cpu_allocator.h"
#include "parallel/gradient_hook.h"
#include "parallel/layout_rules.h"
#include "parallel/model_groups.h"
#include "parallel/options.h"
#include "parallel/process_context.h"
#include "small_model.h"
#include "train/family.h"
#include "train/run_layers.h"

namespace triptych::bench {
namespace {

/// Large enough that activations outweigh what a process needs anyway.
constexpr SmallSizes kSizes{
    .hidden = 512, .intermediate = 1408, .layers = 4, .key_value_heads = 4, .vocabulary = 2048};

/// One rank: forward and backward once.
void run_rank(const std::string& file, const ParallelOptions& parallel, int64_t tokens) {
  install_cpu_allocator();
  ProcessContext process(read_launch_environment(), {.threads = 1});
  const auto family = small_family(kSizes);
  process.set_mesh(
      {.context = parallel.context, .ulysses = ulysses_size(parallel, family->query_heads())});
  const auto groups = model_groups(process, parallel);
  auto model = family->build(at::kBFloat16, groups);
  initialise(model.parameters, 1, at::kCPU);
  for (const auto& p : model.parameters) {
    tag_memory(p->value, MemoryKind::kParameter, p->name);
    set_gradient_hook(
        p->value, [p = p.get()] { tag_memory(p->value.grad(), MemoryKind::kGradient, p->name); });
  }
  reset_memory_peak();
  {
    const auto row = small_row(
        {.tokens = tokens, .length = tokens, .vocabulary = kSizes.vocabulary, .label_every = 2});
    auto flow =
        family->make_flow(row, {}, {.dtype = at::kBFloat16, .with_labels = true, .groups = groups});
    run_layers(model, flow);
    flow.at(family->loss_field()).backward();
  }
  const auto peak = take_peak(process);
  if (process.rank() == 0) write_file_atomically(file, dump_json(to_json(peak)));
  process.close();
}

/// MiB of tensors on the busiest rank at the peak of a step.
double measure(const std::string& program, const Flags& flags, int64_t ranks, int64_t tokens) {
  return peak_from(
             run_ranks(program, ranks,
                       {flags.at("--algorithm"), std::to_string(ranks), std::to_string(tokens)}))
      .total;
}

/// By halving, between a length that fits and one that does not.
int64_t longest(const std::string& program, const Flags& flags, int64_t ranks, double budget) {
  const int64_t grain = 64 * ranks;
  const auto fits = [&](int64_t grains) {
    return measure(program, flags, ranks, grains * grain) <= budget;
  };
  int64_t low = 0, high = 16;
  while (fits(high)) low = high, high *= 2;
  while (high - low > 1) {
    const auto middle = (low + high) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low * grain;
}

void measure(const std::string& program, const Flags& flags) {
  const auto ranks = read_numbers(flags.at("--ranks"));
  fmt::print("{}; MiB of tensors on the busiest rank at the peak of a step\n\n",
             flags.at("--algorithm"));
  std::vector<std::string> head{"tokens"};
  for (const auto n : ranks) head.push_back(fmt::format("{} rank{}", n, n == 1 ? "" : "s"));
  print_head(head);
  std::vector<double> before(ranks.size()), last(ranks.size());
  const auto lengths = read_numbers(flags.at("--tokens"));
  for (const auto tokens : lengths) {
    std::vector<std::string> cells{std::to_string(tokens)};
    before = last;
    for (size_t i = 0; i < ranks.size(); ++i) {
      last[i] = measure(program, flags, ranks[i], tokens);
      cells.push_back(fmt::format("{:.0f}", last[i]));
    }
    print_row(cells);
  }
  if (lengths.size() > 1) {
    std::vector<std::string> cells{"KiB for one more token"};
    const auto more = static_cast<double>(lengths.back() - *(lengths.end() - 2));
    for (size_t i = 0; i < ranks.size(); ++i)
      cells.push_back(fmt::format("{:.1f}", (last[i] - before[i]) * 1024 / more));
    print_row(cells);
  }
  const double budget = std::stod(flags.at("--budget"));
  if (budget <= 0) return;
  std::vector<std::string> cells{fmt::format("longest within {:.0f} MiB", budget)};
  for (const auto n : ranks)
    cells.push_back(fmt::format("{} tokens", longest(program, flags, n, budget)));
  print_row(cells);
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 6 && words[1] == "--rank") {
    ParallelOptions parallel;
    parallel.context = std::stoll(words[4]);
    parallel.context_algorithm =
        words[3] == "ring" ? ContextAlgorithm::kRing : ContextAlgorithm::kUlysses;
    run_rank(words[2], parallel, std::stoll(words[5]));
    return 0;
  }
  measure(words.front(), read_flags(words, {{"--algorithm", "ring"},
                                            {"--ranks", "1,2,4"},
                                            {"--tokens", "2048,4096,8192"},
                                            {"--budget", "0"}}));
  return 0;
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) {
  return triptych::bench::guarded_main(argc, argv, triptych::bench::run);
}

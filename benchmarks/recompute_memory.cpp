// What a training step holds under each way to keep less for backward: what waits between forward
// and backward, the peak, and the time.
//
//   recompute_memory [--tokens 4096] [--layers 8] [--threads 1]

#include <ATen/Parallel.h>

#include <algorithm>

#include "base/clock.h"
#include "base/format.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "parallel/activation_offload.h"
#include "parallel/launcher.h"
#include "small_model.h"
#include "train/recompute_plan.h"
#include "train/run_layers.h"

namespace triptych::bench {
namespace {

constexpr int64_t kVocabulary = 2048;

/// Large enough that activations outweigh what a process needs anyway.
SmallSizes sizes_of(int64_t layers) {
  return {.hidden = 512,
          .intermediate = 2048,
          .layers = layers,
          .key_value_heads = 2,
          .vocabulary = kVocabulary};
}

struct Way {
  const char* name;
  RecomputeOptions options;
};

const std::vector<Way>& ways() {
  using enum RecomputePolicy;
  static const std::vector<Way> all = {
      {"none", {}},
      {"selective: mlp_act, norm", {.policy = kSelective}},
      {"selective: mlp_act, norm, qkv_rope",
       {.policy = kSelective, .modules = {"mlp_act", "norm", "qkv_rope"}}},
      {"selective: mlp", {.policy = kSelective, .modules = {"mlp"}}},
      {"selective: attention", {.policy = kSelective, .modules = {"attention"}}},
      {"full, keep_attention", {.policy = kFull, .keep_attention = true}},
      {"full, half of the layers", {.policy = kFull}},  // their number is set below
      {"full", {.policy = kFull}},
      {"full, groups of 2", {.policy = kFull, .layers = 2, .method = RecomputeMethod::kUniform}},
      {"none, offload", {.offload = true}},
      {"selective: mlp_act, norm, offload", {.policy = kSelective, .offload = true}},
      {"full, offload", {.policy = kFull, .offload = true}},
  };
  return all;
}

void measure(const Way& way, int64_t tokens, int64_t layers, int64_t threads) {
  install_cpu_allocator();
  at::set_num_threads(static_cast<int>(threads));
  const auto family = small_family(sizes_of(layers));
  auto model = family->build(at::kBFloat16);
  initialise(model.parameters, 1, at::kCPU);
  auto options = way.options;
  if (std::string_view(way.name).find("half") != std::string_view::npos)
    options.layers = layers / 2;
  const auto plan =
      make_recompute_plan(options, *family, model,
                          StageCut::whole(static_cast<int64_t>(model.layers.size())), at::kCPU);
  const auto batch =
      small_row({.tokens = tokens, .length = 512, .vocabulary = kVocabulary, .label_every = 4});
  double kept = 0, peak = 0, seconds = 1e9;
  for (int step = 0; step < 3; ++step) {  // the first makes the gradients' memory
    const auto before = memory_totals().bytes;
    reset_memory_peak();
    const double begin = steady_seconds();
    at::Tensor loss;
    {
      auto flow = family->make_flow(batch, {}, {.dtype = at::kBFloat16});
      run_layers(model, flow, plan);
      loss = flow.at(family->loss_field());
    }
    kept = static_cast<double>(memory_totals().bytes - before) / kMiB;
    loss.backward();
    seconds = std::min(seconds, steady_seconds() - begin);
    peak = static_cast<double>(memory_peak().bytes - before) / kMiB;
  }
  const auto host = plan.offload() == nullptr
                        ? 0.0
                        : static_cast<double>(plan.offload()->counts().most_bytes_held) / kMiB;
  const auto number = [](double mib) { return fmt::format("{:.0f}", mib); };
  print_row({way.name, number(kept - host), number(host), number(peak),
             number(static_cast<double>(peak_resident_bytes()) / kMiB),
             fmt::format("{:.2f}", seconds)});
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 6 && words[1] == "--one") {
    measure(ways().at(std::stoull(words[2])), std::stoll(words[3]), std::stoll(words[4]),
            std::stoll(words[5]));
    return 0;
  }
  auto flags = read_flags(words, {{"--tokens", "4096"}, {"--layers", "8"}, {"--threads", "1"}});
  fmt::print(
      "{} tokens, {} layers of 512 x 2048, bf16; MiB by the books, without what was there before "
      "the step\n\n",
      flags["--tokens"], flags["--layers"]);
  print_head({"way", "waits for backward", "of it moved to the host", "peak",
              "resident, whole process", "step, s"},
             1);
  for (size_t i = 0; i < ways().size(); ++i) {
    const std::vector<std::string> one{words.front(),     "--one",           std::to_string(i),
                                       flags["--tokens"], flags["--layers"], flags["--threads"]};
    const int status =
        launch_workers({.processes = 1, .threads = std::stoll(flags["--threads"])}, one);
    if (status != 0) return status;
  }
  return 0;
}

}  // namespace
}  // namespace triptych::bench

int main(int argc, char** argv) {
  return triptych::bench::guarded_main(argc, argv, triptych::bench::run);
}

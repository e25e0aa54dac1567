// What a training step holds under each way to keep less for backward: what waits between forward
// and backward, the peak, and the time.
//
//   recompute_memory [--tokens 4096] [--layers 8] [--threads 1]

#include <ATen/Parallel.h>

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "base/format.h"
#include "base/memory.h"
#include "kernels/cpu_allocator.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/activation_offload.h"
#include "parallel/launcher.h"
#include "train/recompute_plan.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

constexpr double kMiB = 1 << 20;

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

/// Large enough that activations outweigh what a process needs anyway.
std::unique_ptr<Family> make_model(int64_t layers) {
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  options.vision.depth = 1;
  options.vision.hidden_size = options.vision.intermediate_size = 64;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {0};
  options.vision.out_hidden_size = options.text.hidden_size = 512;
  options.text.vocab_size = 2048;
  options.text.intermediate_size = 2048;
  options.text.num_hidden_layers = layers;
  options.text.num_attention_heads = 8;
  options.text.num_key_value_heads = 2;
  options.text.mrope_section = {8, 12, 12};
  options.ids = {.image = 2040, .video = 2041, .vision_start = 2042, .vision_end = 2043};
  return make_family(qwen2_5_vl::make_config(options), "config.json", "", "max_hw");
}

/// Samples of 512 tokens, packed.
MicroBatch packed_samples(int64_t tokens) {
  Row row;
  for (int64_t begin = 0; begin < tokens; begin += 512) {
    Sample sample;
    for (int64_t i = begin; i < std::min(begin + 512, tokens); ++i) {
      sample.tokens.push_back(static_cast<int32_t>(i * 7919 % 2000));
      sample.labels.push_back(i % 4 == 0 ? sample.tokens.back()
                                         : static_cast<int32_t>(kIgnoreLabel));
    }
    row.samples.push_back(std::move(sample));
  }
  return {.rows = {std::move(row)}};
}

void measure(const Way& way, int64_t tokens, int64_t layers, int64_t threads) {
  install_cpu_allocator();
  at::set_num_threads(static_cast<int>(threads));
  const auto family = make_model(layers);
  auto model = family->build(at::kBFloat16);
  initialise(model.parameters, 1, at::kCPU);
  auto options = way.options;
  if (std::string_view(way.name).find("half") != std::string_view::npos)
    options.layers = layers / 2;
  const auto plan =
      make_recompute_plan(options, *family, model,
                          StageCut::whole(static_cast<int64_t>(model.layers.size())), at::kCPU);
  const auto batch = packed_samples(tokens);
  double kept = 0, peak = 0, seconds = 1e9;
  for (int step = 0; step < 3; ++step) {  // the first makes the gradients' memory
    trim_cpu_allocator();
    const auto before = static_cast<double>(resident_bytes());
    const double begin = steady_seconds();
    at::Tensor loss;
    {
      auto flow = family->make_flow(batch, {}, {.dtype = at::kBFloat16});
      run_layers(model, flow, plan);
      loss = flow.at(family->loss_field());
    }
    const double forward = steady_seconds() - begin;
    trim_cpu_allocator();
    kept = static_cast<double>(resident_bytes()) - before;
    const double resumed = steady_seconds();
    loss.backward();
    seconds = std::min(seconds, forward + steady_seconds() - resumed);
    peak = static_cast<double>(peak_resident_bytes()) - before;
  }
  const auto host = plan.offload() == nullptr
                        ? 0.0
                        : static_cast<double>(plan.offload()->counts().most_bytes_held);
  fmt::print("| {} | {:.0f} | {:.0f} | {:.0f} | {:.2f} |\n", way.name, (kept - host) / kMiB,
             host / kMiB, peak / kMiB, seconds);
  std::fflush(stdout);
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 6 && words[1] == "--one") {
    measure(ways().at(std::stoull(words[2])), std::stoll(words[3]), std::stoll(words[4]),
            std::stoll(words[5]));
    return 0;
  }
  std::map<std::string, std::string> flags{
      {"--tokens", "4096"}, {"--layers", "8"}, {"--threads", "1"}};
  for (size_t i = 1; i + 1 < words.size(); i += 2) {
    require<UsageError>(flags.contains(words[i]), words[i],
                        " is not known; there are --tokens, --layers and --threads");
    flags[words[i]] = words[i + 1];
  }
  fmt::print(
      "{} tokens, {} layers of 512 x 2048, bf16; MiB\n\n"
      "| way | waits on the device | waits on the host | peak of the process | step, s |\n"
      "| --- | ---: | ---: | ---: | ---: |\n",
      flags["--tokens"], flags["--layers"]);
  std::fflush(stdout);
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
}  // namespace triptych

int main(int argc, char** argv) {
  try {
    return triptych::run({argv, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

// The bubble of each pipeline schedule, measured against its formula, with layers that sleep
// instead of computing: so a machine with fewer cores than stages shows the real order of things.
//
//   bench_pipeline [stages] [micro-batches] [milliseconds of a stage's forward]

#include "parallel/pipeline.h"

#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/format.h"
#include "base/json.h"
#include "parallel/launch_environment.h"
#include "parallel/launcher.h"
#include "parallel/process_context.h"

namespace triptych {
namespace {

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// Passes a tensor on and takes its time for it: forward, input and weight gradient alike.
struct Sleep : torch::autograd::Function<Sleep> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            double seconds, int64_t gradients) {
    ctx->saved_data["seconds"] = seconds;
    ctx->saved_data["gradients"] = gradients;
    sleep_s(seconds);
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list dy) {
    const double seconds = ctx->saved_data["seconds"].toDouble();
    auto* gradients = reinterpret_cast<WeightGradients*>(ctx->saved_data["gradients"].toInt());
    sleep_s(seconds);
    const auto weight = [seconds] { sleep_s(seconds); };
    if (gradients == nullptr || !gradients->put_off(weight)) weight();
    return {dy[0], {}, {}};
  }
};

struct Measured {
  double bubble = 0, formula = 0, simulated = 0, milliseconds = 0;
};

Measured measure(ProcessContext& process, PipelineShape shape, double forward_s) {
  const int64_t rank = process.coordinates()[MeshDim::kPipeline];
  Pipeline pipeline({.shape = shape, .rank = rank, .fields = {"x"}},
                    pipeline_groups(process, shape.chunks));
  const double chunk_s = forward_s / static_cast<double>(shape.chunks);
  double begin = 0, end = 0, work = 0;
  PipelineWork step;
  step.make_flow = [&](int64_t) {
    Flow flow;
    if (rank == 0) flow.set("x", at::zeros({1024}).set_requires_grad(true));
    return flow;
  };
  step.run_layers = [&](int64_t, int64_t, Flow& flow) {
    const auto gradients = reinterpret_cast<int64_t>(pipeline.weight_gradients().get());
    flow.set("x", Sleep::apply(flow.at("x"), chunk_s, gradients));
  };
  step.loss = [](int64_t, const Flow& flow) { return flow.at("x").sum(); };
  step.observe = [&](const SlotRecord& slot) {
    if (begin == 0) begin = slot.begin_s + slot.waited_s;
    end = slot.end_s;
    work += slot.end_s - slot.begin_s - slot.waited_s;
  };
  process.world().barrier();
  pipeline.run(step, shape.micro_batches);

  const auto texts = process.world().all_gather_strings(
      dump_json(Json{{"begin", begin}, {"end", end}, {"work", work}}));
  double first = begin, last = end;
  std::vector<double> works;
  for (const auto& text : texts) {
    const auto other = parse_json(text, "rank");
    first = std::min(first, other["begin"].get<double>());
    last = std::max(last, other["end"].get<double>());
    works.push_back(other["work"].get<double>());
  }
  Measured result{.milliseconds = 1000 * (last - first)};
  for (const double w : works)
    result.bubble += ((last - first) / w - 1) / static_cast<double>(works.size());
  result.formula = bubble_formula(shape, SlotTimes());
  result.simulated = simulate(shape, SlotTimes()).bubble;
  return result;
}

int run(int64_t stages, int64_t micro_batches, double forward_s) {
  ProcessContext process(read_launch_environment(), {.threads = 1});
  process.set_mesh({.pipeline = stages});
  struct Row {
    const char* name;
    PipelineShape shape;
  };
  const Row rows[] = {
      {"1F1B", {stages, 1, micro_batches}},
      {"interleaved, 2 chunks", {stages, 2, micro_batches}},
      {"interleaved, 4 chunks", {stages, 4, micro_batches}},
      {"ZB-H1", {stages, 1, micro_batches, 0, PipelineOrder::kZeroBubbleH1}},
  };
  if (process.rank() == 0) {
    std::printf("%ld stages, %ld micro-batches, F = I = W = %.0f ms a stage; bubble / work\n",
                static_cast<long>(stages), static_cast<long>(micro_batches), 1000 * forward_s);
    std::printf("%-24s %10s %10s %10s %10s\n", "schedule", "measured", "simulated", "formula",
                "step ms");
  }
  for (const auto& row : rows) {
    const auto m = measure(process, row.shape, forward_s);
    if (process.rank() == 0)
      std::printf("%-24s %10.4f %10.4f %10.4f %10.1f\n", row.name, m.bubble, m.simulated, m.formula,
                  m.milliseconds);
  }
  process.close();
  return 0;
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  const int64_t stages = argc > 1 ? std::atoll(argv[1]) : 4;
  const int64_t micro_batches = argc > 2 ? std::atoll(argv[2]) : 8;
  const double forward_s = (argc > 3 ? std::atof(argv[3]) : 20) / 1000;
  try {
    if (triptych::read_launch_environment().own_launcher)
      return triptych::run(stages, micro_batches, forward_s);
    const std::vector<std::string> words(argv, argv + argc);
    return triptych::launch_workers({.processes = stages}, words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

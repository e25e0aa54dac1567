#include "train/run_layers.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>

#include "kernels/memory_scope.h"
#include "parallel/activation_offload.h"
#include "parallel/parameter_shards.h"
#include "parallel/recompute.h"
#include "parallel/run_layer.h"
#include "parallel/segments.h"

namespace triptych {

namespace {

void run_group(std::span<const std::unique_ptr<Layer>> layers, const LayerRecompute& how,
               Flow& flow, ActivationOffload* offload) {
  std::optional<LayerScope> scope;
  if (!how.memory.modules.empty() || how.memory.offload)
    scope.emplace(*layers.front(), how.memory, offload);
  const MemoryScope memory(MemoryPhase::kForward, layers.front()->name());
  if (how.again) return forward_recomputed(layers, flow, how.keep_attention);
  for (const auto& layer : layers) run_layer(*layer, flow);
}

}  // namespace

void run_layers(const Model& model, Flow& flow, const RecomputePlan& plan,
                const LayerObserver& observer) {
  run_layers(model, {0, static_cast<int64_t>(model.layers.size())}, flow, plan, observer);
}

void run_layers(const Model& model, LayerRange range, Flow& flow, const RecomputePlan& plan,
                const LayerObserver& observer) {
  auto* shards = model.shards.get();
  const bool plain = plan.empty() || !at::GradMode::is_enabled();
  if (!plain && plan.offload() != nullptr) plan.offload()->begin_pass();
  const auto end = static_cast<size_t>(range.end);
  for (auto i = static_cast<size_t>(range.begin); i < end;) {
    const size_t next = plain ? i + 1 : plan.end_of_group(i, end);
    Flow before;
    if (shards != nullptr) {
      shards->before_forward(i, range);
      before = flow;
    }
    if (plain) {
      const MemoryScope memory(MemoryPhase::kForward, model.layers[i]->name());
      run_layer(*model.layers[i], flow);
    } else {
      run_group(std::span(model.layers).subspan(i, next - i), plan.of(i), flow, plan.offload());
    }
    if (shards != nullptr) shards->after_forward(next - 1, range, before, flow);
    if (observer) observer(next - 1, flow);
    i = next;
  }
}

std::vector<double> training_flops(const Model& model, const FlowSize& size) {
  std::vector<double> flops;
  bool gradients_pass = false;
  for (const auto& layer : model.layers) {
    // An adapter's own products are left out: they are a small share, and its layer's weight has no
    // gradient.
    const auto& parameters = layer->parameters();
    const auto is_adapter = [](const auto& p) {
      return p->name.find(".lora_") != std::string::npos;
    };
    const bool weights = std::any_of(parameters.begin(), parameters.end(),
                                     [&](const auto& p) { return p->trained && !is_adapter(p); });
    const bool adapters = std::any_of(parameters.begin(), parameters.end(),
                                      [&](const auto& p) { return p->trained && is_adapter(p); });
    const double forward = layer->cost(size).forward_flop;
    flops.push_back(forward * (1 + (gradients_pass ? 1 : 0) + (weights ? 1 : 0)));
    gradients_pass = gradients_pass || weights || adapters;
  }
  return flops;
}

double training_flop(const Model& model, const FlowSize& size) {
  const auto flops = training_flops(model, size);
  return std::accumulate(flops.begin(), flops.end(), 0.0);
}

}  // namespace triptych

#include "train/run_layers.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/memory_scope.h"
#include "parallel/parameter_shards.h"
#include "parallel/recompute.h"
#include "parallel/run_layer.h"

namespace triptych {

RecomputePlan RecomputePlan::full(const Family& family, const Model& model, int64_t count) {
  return full(family, model, [count](const std::string&) { return count; });
}

RecomputePlan RecomputePlan::full(const Family& family, const Model& model,
                                  const std::function<int64_t(const std::string& part)>& count_of) {
  const auto whole = StageCut::whole(static_cast<int64_t>(model.layers.size()));
  return full(family, model, whole,
              [&](const std::string& part, int64_t /*stage*/) { return count_of(part); });
}

RecomputePlan RecomputePlan::full(
    const Family& family, const Model& model, const StageCut& cut,
    const std::function<int64_t(const std::string& part, int64_t stage)>& count_of) {
  RecomputePlan plan;
  std::map<std::pair<int64_t, std::string>, int64_t> seen;  // by virtual stage and part
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto& layer = *model.layers[i];
    const int64_t stage = cut.stage_of(static_cast<int64_t>(i));
    const int64_t count = family.is_block(layer) ? count_of(layer.part(), stage % cut.stages) : 0;
    auto& covered_before = seen[{stage, layer.part()}];
    const bool covered = count < 0 || covered_before < count;
    plan.covered_.push_back(covered);
    if (covered) ++covered_before;
  }
  return plan;
}

void run_layers(const Model& model, Flow& flow, const RecomputePlan& plan,
                const LayerObserver& observer) {
  run_layers(model, {0, static_cast<int64_t>(model.layers.size())}, flow, plan, observer);
}

void run_layers(const Model& model, LayerRange range, Flow& flow, const RecomputePlan& plan,
                const LayerObserver& observer) {
  auto* shards = model.shards.get();
  for (auto i = static_cast<size_t>(range.begin); i < static_cast<size_t>(range.end); ++i) {
    Flow before;
    if (shards != nullptr) {
      shards->before_forward(i, range);
      before = flow;
    }
    const MemoryScope memory(MemoryPhase::kForward, model.layers[i]->name());
    if (plan.covers(i)) {
      forward_recomputed(*model.layers[i], flow);
    } else {
      run_layer(*model.layers[i], flow);
    }
    if (shards != nullptr) shards->after_forward(i, range, before, flow);
    if (observer) observer(i, flow);
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

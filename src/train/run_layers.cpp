#include "train/run_layers.h"

#include <algorithm>
#include <map>

#include "parallel/recompute.h"

namespace triptych {

RecomputePlan RecomputePlan::full(const Family& family, const Model& model, int64_t count) {
  return full(family, model, [count](const std::string&) { return count; });
}

RecomputePlan RecomputePlan::full(const Family& family, const Model& model,
                                  const std::function<int64_t(const std::string& part)>& count_of) {
  RecomputePlan plan;
  std::map<std::string, int64_t> seen;
  for (const auto& layer : model.layers) {
    const int64_t count = family.is_block(*layer) ? count_of(layer->part()) : 0;
    const bool covered = count < 0 || seen[layer->part()] < count;
    plan.covered_.push_back(covered);
    if (covered) ++seen[layer->part()];
  }
  return plan;
}

void run_layers(const Model& model, Flow& flow, const RecomputePlan& plan,
                const LayerObserver& observer) {
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (plan.covers(i)) {
      forward_recomputed(*model.layers[i], flow);
    } else {
      model.layers[i]->forward(flow);
    }
    if (observer) observer(i, flow);
  }
}

double training_flop(const Model& model, const FlowSize& size) {
  double flop = 0;
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
    flop += forward * (1 + (gradients_pass ? 1 : 0) + (weights ? 1 : 0));
    gradients_pass = gradients_pass || weights || adapters;
  }
  return flop;
}

}  // namespace triptych

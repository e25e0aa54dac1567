#pragma once

#include <functional>
#include <string>
#include <vector>

#include "parallel/layer.h"
#include "parallel/stage_cut.h"
#include "train/family.h"
#include "train/recompute_plan.h"

namespace triptych {

/// Called after each layer with its number, or after each group of layers that are recomputed
/// together with that of its last; for tests and for `verify`.
using LayerObserver = std::function<void(size_t layer, const Flow& flow)>;

/// Runs all layers of a model over a flow.
void run_layers(const Model& model, Flow& flow, const RecomputePlan& plan = {},
                const LayerObserver& observer = {});

/// Runs those of a range; the observer gets their numbers in the whole list.
void run_layers(const Model& model, LayerRange range, Flow& flow, const RecomputePlan& plan = {},
                const LayerObserver& observer = {});

/// Of each layer, the model flop of one training step over a micro-batch: forward once, backward
/// twice where weights are trained, once where gradients only pass through, not at all below the
/// first trained layer. Recomputation is not counted.
std::vector<double> training_flops(const Model& model, const FlowSize& size);
/// Their sum.
double training_flop(const Model& model, const FlowSize& size);

}  // namespace triptych

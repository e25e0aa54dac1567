#pragma once

#include <functional>
#include <string>
#include <vector>

#include "parallel/layer.h"
#include "parallel/stage_cut.h"
#include "train/family.h"

namespace triptych {

/// Which layers are computed again in backward instead of keeping their inner results
/// (`[recompute]` of the run file).
class RecomputePlan {
 public:
  RecomputePlan() = default;  ///< none

  /// policy = "full".
  /// @param count    how many blocks, from the first of each part on (method "block"); -1 = all.
  static RecomputePlan full(const Family& family, const Model& model, int64_t count);
  /// @param count_of  the same for each part of the model; 0: none of it.
  static RecomputePlan full(const Family& family, const Model& model,
                            const std::function<int64_t(const std::string& part)>& count_of);
  /// In a pipeline: counts from the first block of each part in each of its pieces.
  /// @param count_of  for a part and a stage (pipeline rank).
  static RecomputePlan full(
      const Family& family, const Model& model, const StageCut& cut,
      const std::function<int64_t(const std::string& part, int64_t stage)>& count_of);

  bool covers(size_t layer) const { return layer < covered_.size() && covered_[layer]; }

 private:
  std::vector<bool> covered_;
};

/// Called after each layer with its number; for tests and for `verify`.
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

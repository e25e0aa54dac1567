#pragma once

// One optimizer step of supervised fine-tuning: micro-batches forward and backward under weights
// that make the loss the same in every layout, then norm, clipping and update.

#include <functional>
#include <limits>
#include <span>
#include <string>

#include "data/sample.h"
#include "parallel/batch_plan.h"
#include "parallel/group.h"
#include "parallel/sharded_optimizer.h"
#include "train/family.h"
#include "train/loaded_model.h"
#include "train/run_layers.h"
#include "train/stage.h"

namespace triptych {

struct StepSettings {
  LossAverage loss_average = LossAverage::kToken;
  double clip_norm = 1.0;  ///< 0: no clipping
  uint64_t seed = 0;       ///< of adapter dropout
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  RecomputePlan recompute;
  std::function<void(const SlotRecord&)> observe_slot;  ///< of a pipeline; may be empty
  std::function<void()> before_update;  ///< called before any weight or state changes; may be empty
};

/// What a step did, the same on every rank.
struct StepReport {
  double loss = 0;      ///< of the whole step over all ranks
  double norm = 0;      ///< of the gradient, before clipping
  bool updated = true;  ///< false: no label at all, or a loss or norm that is not finite
  bool finite = true;
  int64_t label_tokens = 0, input_tokens = 0, samples = 0;
  double flop = 0;  ///< model flop over all ranks
};

/// Sum of losses and number of label tokens of a batch without any gradient: validation.
struct LossSum {
  double loss = 0;
  double tokens = 0;
};

/// Where something that is not finite appears first.
struct NonfinitePlace {
  int64_t order = std::numeric_limits<int64_t>::max();  ///< along forward, then backward
  std::string text;  ///< "the output of visual.blocks.3"; empty: nothing was found
};

class TrainStep {
 public:
  /// @param data   the data-parallel ranks.
  /// @param stage  this rank's part of a pipeline; null: all layers are here.
  /// All must outlive this.
  TrainStep(const LoadedModel& loaded, ShardedOptimizer& optimizer, Group& data,
            StepSettings settings, Stage* stage = nullptr);

  /// @param micro_batches  this rank's; the same number on every rank.
  /// @param step           number of this step, from 1.
  StepReport run(std::span<const MicroBatch> micro_batches, int64_t step, double learning_rate);

  /// Where NaN or infinity first appears when the same micro-batches are computed again: in the
  /// output of a layer, or in the gradient of a parameter; nothing where this rank sees none. All
  /// ranks call it, right after `run`, with the arguments of `run`.
  NonfinitePlace find_nonfinite(std::span<const MicroBatch> micro_batches, int64_t step);

  /// Loss sums of micro-batches without gradients; in a pipeline only the last stage has them.
  LossSum evaluate(std::span<const MicroBatch> micro_batches);

  /// Ranks over which losses add up to that of the step.
  Group& losses() { return stage_ != nullptr ? stage_->losses() : data_; }

 private:
  /// Loss weights of the samples of micro-batch i.
  using WeightsOf = std::function<std::vector<double>(size_t i)>;

  FlowRequest flow_request(int64_t step) const;
  Flow make_flow(const MicroBatch& batch, const std::vector<double>& weights,
                 const FlowRequest& request) const;
  /// Forward and backward of all micro-batches; gradients are left in the optimizer. @return the
  /// sum of this rank's losses.
  double compute_gradients(std::span<const MicroBatch> micro_batches, int64_t step,
                           const WeightsOf& weights_of);
  double compute_in_pipeline(std::span<const MicroBatch> micro_batches, int64_t step,
                             const WeightsOf& weights_of);
  PipelineWork stage_work(std::span<const MicroBatch> micro_batches, const FlowRequest& request,
                          const WeightsOf& weights_of, std::vector<bool> computed) const;
  NonfinitePlace nonfinite_layer(std::span<const MicroBatch> micro_batches, int64_t step);

  const LoadedModel& loaded_;
  ShardedOptimizer& optimizer_;
  Group& data_;
  StepSettings settings_;
  Stage* stage_ = nullptr;
  /// Which micro-batches of the step are computed: those with labels, here or, where data ranks
  /// share pictures, on any of them, since all must take part then.
  std::vector<bool> computed_;
};

/// Label tokens of each sample of a micro-batch, in the order of rows and samples.
std::vector<int64_t> label_counts(const MicroBatch& batch);

LossSum evaluate_loss(const LoadedModel& loaded, const MicroBatch& batch,
                      const StepSettings& settings);

}  // namespace triptych

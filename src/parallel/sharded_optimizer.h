#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "parallel/group.h"
#include "parallel/mesh.h"
#include "parallel/parameter.h"
#include "parallel/shard_groups.h"

namespace triptych {

class ParameterShards;
class ProcessContext;
class WeightGradients;

/// AdamW's settings that do not change from step to step.
struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;
  bool decay_all = false;  ///< false: only parameters with two or more dims
};

struct ShardingSettings {
  /// 0: every rank holds everything; 1: its slice of the states; 2: and of the gradients; 3: and of
  /// the parameters (OptimizerGroups::parameters; without them as 2).
  int64_t zero = 1;
  int64_t bucket_elements = 0;  ///< 0: max(40 M, 1 M x ranks that share)
  bool overlap = true;          ///< reduce full buckets while backward still runs
  bool offload = false;         ///< states in host memory, whatever the parameters' device
};

/// The groups an optimizer works over. A group of one costs nothing; null is a group of one.
struct OptimizerGroups {
  Group* gradients = nullptr;  ///< ranks that hold the same parameters
  ShardGroups sharing;         ///< who of them shares the shards with whom
  Group* norm = nullptr;       ///< ranks whose sums of squares add up to the whole norm
  Group* tensor = nullptr;     ///< ranks that split matrices: sums what Parameter marks for it
  /// Parameters that layers of several pipeline ranks use (a tied embedding): each rank finds a
  /// part of the gradient. In an order that is the same on all ranks that share one.
  struct Shared {
    std::string parameter;
    Group* group = nullptr;
  };
  std::vector<Shared> shared;
  MeshCoordinates coordinates;
  /// The parameters of a pipeline's chunks, in their order; one that several chunks use stands in
  /// each of them. Empty: one chunk.
  std::vector<ParameterList> chunks;
  /// Names of parameters whose gradient comes once in a backward, whole: the first one is known to
  /// be complete when it comes. Of others a whole backward must have been seen first.
  std::set<std::string> come_once;
  ParameterShards* parameters = nullptr;  ///< ZeRO-3; must outlive the optimizer
  /// Products that backward has put off (WeightGradients::keep_for_exchanges); may be null.
  std::shared_ptr<WeightGradients> waiting;
};
OptimizerGroups optimizer_groups(ProcessContext& process, int64_t zero,
                                 const ZeroGroupChoice& zero_group = ZeroGroup::kAll);

enum class StateKind : uint8_t { kMaster, kExpAvg, kExpAvgSq };

/// Elements [begin, end) of a parameter (of what this rank's tensor holds, flattened).
struct StateRange {
  std::string name;
  int64_t begin = 0, end = 0;
  bool writer = true;  ///< this rank saves it; other ranks hold a copy
};

/// AdamW over sharded states, gradients and parameters (ZeRO-0 to -3), with the semantics of
/// torch.optim.AdamW.
///
/// Several ranks: gradients are summed in fp32 into flat buckets as autograd delivers them, full
/// buckets are reduced in a fixed order while backward still runs, and each rank updates its slice
/// of every bucket.
///   ZeRO-0, -1  the parameters become views of the buckets' weights (`Parameter::value` moves with
///               set_data), buckets are reduced in the last micro-batch's backward, and the updated
///               slices are gathered in place.
///   ZeRO-2      a bucket's gradients exist from the first of them until it is reduced, once in
///               every micro-batch; what stays is an fp32 slice that sums micro-batches up.
///   ZeRO-3      the same with a bucket for each unit of ParameterShards: no weights are held or
///               gathered here, and buckets are reduced as backward leaves their layer.
/// Sums over replicas of the shards, over tensor ranks (Placement::sum_over_tensor,
/// Parameter::copies) and over pipeline stages that share a parameter are taken of the slices,
/// after the last backward. One rank: nothing moves and nothing is copied; gradients are used where
/// autograd left them, row-sparse ones included, except that bf16 gradients of several
/// micro-batches are summed in fp32.
///
/// A bf16 parameter's fp32 master is the weight itself and 16 more bits; an fp32 parameter is its
/// own master. So bytes per parameter on one rank and one micro-batch: 2 weight, 2 rest of the
/// master, 8 moments, 2 gradient.
///
///   optimizer.begin_step(micro_batches);
///   for (...) { loss.backward(); optimizer.finish_micro_batch(); }
///   const auto done = optimizer.step({.learning_rate = lr, .clip_norm = 1.0});
///
/// Call from one thread; the backward must have ended before finish_micro_batch. All ranks of the
/// group must make the same calls; which parameters got gradients may differ.
class ShardedOptimizer {
 public:
  /// @param parameters  all of the model; those not trained are left alone. Values must have their
  ///   storage and dtype (fp32 or bf16) by now and be the same on all ranks of the group.
  ShardedOptimizer(const ParameterList& parameters, const AdamWSettings& adamw,
                   const ShardingSettings& sharding, const OptimizerGroups& groups);
  ~ShardedOptimizer();
  ShardedOptimizer(const ShardedOptimizer&) = delete;
  ShardedOptimizer& operator=(const ShardedOptimizer&) = delete;

  /// Forgets all gradients and opens a step.
  void begin_step(int64_t micro_batches);
  /// The same for a pipeline, where backwards of several micro-batches and chunks take turns;
  /// `finish_backward` and `finish_chunk` say what is complete, and `finish_micro_batches` takes
  /// the place of all calls of finish_micro_batch.
  /// @param parted  a backward gives its weight gradients later than the others (zero bubble)
  void begin_pipelined_step(int64_t micro_batches, bool parted = false);
  /// A backward of one micro-batch in this chunk is over, or there was none on this rank.
  void finish_backward(int64_t chunk);
  /// No more gradients will come for the parameters of this chunk in this step.
  void finish_chunk(int64_t chunk);
  void finish_micro_batches();
  /// After each backward. The last one waits until every gradient is summed over the ranks.
  void finish_micro_batch();

  /// Norm of scale x gradient over all distinct parameters of the whole mesh, accumulated in fp64;
  /// the same on every rank. Only after the last micro-batch.
  double norm(double scale = 1);

  struct StepRequest {
    double learning_rate = 0;
    double scale = 1;      ///< gradients are multiplied by this first
    double clip_norm = 0;  ///< 0: no clipping
  };
  struct StepResult {
    double norm = 0;      ///< before clipping, of the scaled gradient
    bool updated = true;  ///< false: the norm is not finite, nothing was changed on any rank
  };
  /// Updates the parameters and frees the gradients.
  StepResult step(const StepRequest& request);
  /// Frees the gradients without an update (no label token in the whole step).
  void skip_step();

  /// Elements trained on this rank before any sharding.
  int64_t trained_elements() const;
  /// Bytes this rank keeps for states, main gradients included.
  int64_t state_bytes() const;

  /// Updates made so far; bias correction depends on it. A parameter that got no gradient on any
  /// rank is left out of an update, as torch.optim does, and then counts fewer of its own.
  int64_t steps() const;
  /// By name, the counts of those parameters that differ from `steps()`; usually none.
  std::map<std::string, int64_t> deviating_steps() const;
  void set_steps(int64_t steps, const std::map<std::string, int64_t>& deviating = {});

  /// What this rank holds, in a fixed order. Together the writers of the group cover every trained
  /// parameter once.
  std::vector<StateRange> ranges() const;
  /// fp32 values [end - begin] of one of `ranges()`; may be a view of live memory: copy before the
  /// next step. An fp32 parameter's master is its weight.
  at::Tensor state(const StateRange& range, StateKind kind) const;
  /// Takes over what of [begin, end) this rank holds; anything else is ignored, so the whole of a
  /// parameter may be passed. A master also sets the weight.
  /// @throws Error for an unknown name or elements outside it.
  void set_state(const std::string& name, StateKind kind, int64_t begin, int64_t end,
                 const at::Tensor& values);
  /// After the last set_state: every rank's weights become those of the owners' masters.
  void finish_loading();

  /// The summed gradient of [begin, end) of one of `ranges()`, fp32, between the last
  /// finish_micro_batch and step; zeros where there was none. For tests and `verify`.
  at::Tensor gradient(const StateRange& range) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace triptych

#pragma once

// What each layer keeps for its backward: `[recompute]` of the run file, laid over a model.

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"
#include "parallel/options.h"
#include "parallel/segments.h"
#include "parallel/stage_cut.h"
#include "train/family.h"

namespace triptych {

/// Of one layer.
struct LayerRecompute {
  bool again = false;          ///< all of it is computed again in backward
  bool with_previous = false;  ///< together with the layer before, whose input alone is kept
  bool keep_attention = false;
  LayerMemory memory;

  bool is_plain() const { return !again && memory.modules.empty() && !memory.offload; }
};

class RecomputePlan {
 public:
  RecomputePlan() = default;  ///< everything is kept
  /// One entry a layer of the model.
  RecomputePlan(std::vector<LayerRecompute> layers, std::shared_ptr<ActivationOffload> offload);

  /// policy = "full", method = "block" on one stage: the first `count` blocks of each part are
  /// computed again; -1 = all.
  static RecomputePlan full(const Family& family, const Model& model, int64_t count);

  bool empty() const { return layers_.empty(); }
  /// @pre !empty()
  const LayerRecompute& of(size_t layer) const { return layers_[layer]; }
  /// The layer behind the group that begins with `layer`, at most `end`.
  size_t end_of_group(size_t layer, size_t end) const;
  /// The groups of several layers.
  std::vector<LayerRange> groups() const;
  /// Null when nothing is offloaded.
  ActivationOffload* offload() const { return offload_.get(); }

 private:
  std::vector<LayerRecompute> layers_;  ///< empty when all are plain
  std::shared_ptr<ActivationOffload> offload_;
};

/// Adds what is wrong with the options to `problems`: rule M16 of docs/spec/parallelism.md, names
/// that no layer has, settings that do not go together.
void check_recompute(const RecomputeOptions& options, const Family& family, const Model& model,
                     const StageCut& cut, Problems& problems);

/// @param cut     counts of layers begin anew in each of its pieces, for each part
/// @param device  whose activations `offload` moves
RecomputePlan make_recompute_plan(const RecomputeOptions& options, const Family& family,
                                  const Model& model, const StageCut& cut, at::Device device);

}  // namespace triptych

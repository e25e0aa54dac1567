#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/axis.h"

namespace triptych {

class WeightGradients;

/// How a parameter lies over the mesh. Loading, saving, resharding, the gradient norm, weight decay
/// and the sharded optimizer read this and nothing else.
struct Placement {
  /// One dim cut into equal parts over one axis.
  struct Split {
    int64_t dim = 0;
    Axis axis = Axis::kTensor;
  };
  std::optional<Split> split;  ///< nothing: every rank of the axis holds the whole tensor
};

/// One trainable or frozen tensor of a model.
///
/// The name is the hub's canonical key (`model.layers.0.self_attn.q_proj.weight`), so that a
/// parameter's path is its key in a checkpoint. `value` starts on the meta device; loading gives it
/// storage. Optimizers may move `value` into a flat buffer with `set_data`, so keep the Parameter,
/// not a copy of the tensor, where identity matters.
struct Parameter {
  std::string name;
  std::string part;                 ///< "vision", "projector" or "text": what `model.freeze` names
  std::vector<int64_t> full_shape;  ///< of the whole tensor, before any split
  Placement placement;
  at::Tensor value;  ///< what this rank holds
  bool trained = true;
  bool held = true;   ///< a layer of this rank's pipeline stage uses it; else it stays on meta
  int64_t owner = 0;  ///< the first pipeline rank whose layers use it: saves it, counts it in norms
  /// Where the weight gradients of its products may be put off to; null: nowhere.
  std::shared_ptr<WeightGradients> weight_gradients;
  /// Standard deviation of the reference's random initialisation; constant for `weights =
  /// "random"`.
  struct Init {
    enum class Kind { kNormal, kZero, kOne, kUniform } kind = Kind::kNormal;
    double scale = 0.02;  ///< standard deviation, or half the width of the uniform distribution
  } init;
};

using ParameterPtr = std::shared_ptr<Parameter>;
using ParameterList = std::vector<ParameterPtr>;

}  // namespace triptych

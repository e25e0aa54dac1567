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

/// Elements [start, start + length) along one dim.
struct Range {
  int64_t start = 0, length = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

/// How a parameter lies over the mesh. Loading, saving, resharding, the gradient norm, weight decay
/// and the sharded optimizer read this (and what follows from it in Parameter) and nothing else.
struct Placement {
  /// One dim cut over one axis. The three layouts of joined query, key and value matrices
  /// (docs/spec/parallelism.md, 2.2.3):
  ///   thirds    [all q; all k; all v]: sections = 3, unit = the rows of a head
  ///   grouped   a key/value head behind its query heads: unit = the rows of such a group
  ///   separate  three matrices: unit = the rows of a head
  /// A joined [gate; up] has two sections.
  struct Split {
    int64_t dim = 0;
    Axis axis = Axis::kTensor;
    int64_t sections = 1;  ///< equal parts, one behind the other, each of which is cut by itself
    int64_t unit = 1;      ///< neighbours that are never parted
  };
  std::optional<Split> split;  ///< nothing: every rank of the axis holds the whole tensor
  /// The tensor ranks hold the whole of it and each finds only a part of its gradient: its input is
  /// another part of the tokens on each, or what follows is a partial sum.
  bool sum_over_tensor = false;
};

/// What rank `rank` of `ranks` holds of a dim of `size`: for each section one range. Units are
/// dealt out in order, as evenly as whole ones can be. With fewer units than ranks, ranks / units
/// neighbours hold the same one. @throws Error when neither divides the other then.
std::vector<Range> held_ranges(const Placement::Split& split, int64_t size, int64_t ranks,
                               int64_t rank);

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
  /// The parts of `placement.split->dim` that `value` consists of, in this order; empty: all of it.
  std::vector<Range> held;
  /// Tensor ranks that hold the same part of a split parameter: key/value heads fewer than ranks.
  /// Each finds a part of its gradient.
  int64_t copies = 1;
  /// This rank is the first of the tensor ranks that hold the same elements: the one that saves
  /// them and counts them in the norm.
  bool first_copy = true;
  bool trained = true;
  bool on_stage = true;  ///< a layer of this rank's pipeline stage uses it; else it stays on meta
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

/// Of a tensor of the parameter's full shape, the part that this rank holds; a view where it can
/// be.
at::Tensor part_of(const Parameter& parameter, const at::Tensor& whole);

class Group;
/// The whole tensor from the parts [...] of all tensor ranks: `value`'s, or any other tensors that
/// lie as the value does. All ranks of the group call it; one rank, or a parameter that is not
/// split: `part` itself.
at::Tensor gather_whole(const Parameter& parameter, const at::Tensor& part, Group* tensor);

}  // namespace triptych

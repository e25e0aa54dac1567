#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "parallel/flat_layout.h"
#include "parallel/group.h"
#include "parallel/layer.h"
#include "parallel/stage_cut.h"

namespace triptych {

struct ShardedParameterSettings {
  Group* group = nullptr;  ///< ranks that share the shards; at least two
  int64_t prefetch = 1;    ///< layers gathered ahead of the one that runs
  /// Free a layer's parameters between its forward and its backward; false: they stay until
  /// `release_all`.
  bool reshard = true;
  /// The last layer's backward follows its forward at once, so it stays (no pipeline).
  bool backward_follows = true;
  at::Device device = at::kCPU;
  /// Parameters that get a unit of their own: those that other pipeline stages hold as well, whose
  /// shards must be the same there.
  std::set<std::string> apart;
};

/// ZeRO-3: parameters of which each rank of a group keeps a part, gathered layer by layer while
/// they are used.
///
/// The parameters of a layer lie one behind the other in flat units (one for each dtype, and for
/// trained and frozen ones), cut evenly over the ranks. `Parameter::value` is a view into its
/// unit's full memory, which exists only between `before_forward` and `after_forward`, and again in
/// backward: the storage is filled and emptied in place, so that what autograd has saved of a
/// weight sees the values again. A parameter that several layers use has a unit of its own.
///
/// Collectives follow from the list of layers alone, never from the data: all ranks of the group
/// run the same layers the same number of times, and a rank that has nothing to compute calls
/// `idle_forward`. Backward is followed by hooks on what layers put into the flow; it may skip
/// layers (a tower without pictures) or be missing altogether: `end_backward` does what is left,
/// so that no rank waits for another.
///
/// One thread at a time; autograd's thread of a device while the caller waits for it counts as one.
class ParameterShards {
 public:
  /// A flat tensor of some parameters, of which this rank holds [begin, begin + shard.numel()).
  struct Unit {
    ParameterList parameters;
    FlatLayout::Bucket layout;  ///< slots count `parameters`
    at::Tensor shard;           ///< this rank's elements; always there
    int64_t begin = 0;
    bool trained = false;
    size_t lowest_layer = 0;  ///< the first of the layers that use it: backward ends there
  };

  /// Parameters must be on the meta device, with the dtypes and shapes that this rank will hold.
  /// Those that are not `on_stage` are left alone.
  ParameterShards(const LayerList& layers, const ShardedParameterSettings& settings);
  ~ParameterShards();
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  // ---- values

  /// Keeps this rank's elements of a value [as the parameter's] and frees the rest: a parameter
  /// that was on the meta device gets its place in the unit.
  void store(Parameter& parameter, const at::Tensor& value);
  /// The whole of what `parameter.value` would hold, a tensor of its own. All ranks of the group
  /// ask for the same parameters in the same order.
  at::Tensor whole(const Parameter& parameter);
  /// The shards have changed: what is gathered is out of date and freed.
  void release_all();

  const std::vector<Unit>& units() const { return units_; }
  Group& group() const { return *settings_.group; }
  /// Bytes of gathered units at this moment.
  int64_t gathered_bytes() const;

  // ---- running

  /// Layers that are run in one piece again in backward are gathered together. None may cross the
  /// ranges that are run; layers in none of them are gathered one by one. Before any is run.
  void gather_together(const std::vector<LayerRange>& pieces);

  /// Around layer i of a range of the model's layers that is run over `flow`.
  void before_forward(size_t layer, LayerRange range);
  void after_forward(size_t layer, LayerRange range, const Flow& before, const Flow& after);
  /// Instead of running a range where this rank has nothing to compute.
  void idle_forward(LayerRange range);
  /// After the backward of a range, or in place of one that did not happen.
  void end_backward(LayerRange range);
  void end_backward() { end_backward({0, static_cast<int64_t>(units_of_layer_.size())}); }
  /// Called when the backward of a layer is over on this rank: no more gradients come in this pass.
  void on_layer_done(std::function<void(size_t layer)> done) { layer_done_ = std::move(done); }

 private:
  struct Memory;

  void take_layers(const LayerList& layers);
  void make_unit(const ParameterList& parameters, const std::vector<size_t>& layers);
  void request(size_t piece);
  void await(size_t piece);
  void drop(size_t piece);
  void enter_backward(int64_t piece, LayerRange pieces);
  bool keeps(size_t piece, LayerRange pieces) const;
  bool needed_in_backward(size_t piece) const {
    return pieces_[piece].end > static_cast<int64_t>(first_backward_);
  }
  LayerRange pieces_of(LayerRange layers) const;

  ShardedParameterSettings settings_;
  std::vector<Unit> units_;
  std::vector<Memory> memory_;                                    // of the units
  std::vector<std::vector<size_t>> units_of_layer_;               // of all layers of the model
  std::map<const Parameter*, std::pair<size_t, size_t>> places_;  // unit and slot
  std::vector<LayerRange> pieces_;                                // layers gathered together
  std::vector<size_t> piece_of_layer_;
  std::vector<bool> requested_;  // by piece
  size_t first_backward_ = 0;    // layers below it have no trained parameter at or below them
  int64_t cursor_ = -1;          // piece that backward is in; -1: in none
  size_t whole_unit_ = 0;        // of `whole_`
  at::Tensor whole_;             // the unit that `whole` gathered last
  std::function<void(size_t)> layer_done_;
};

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/parameter.h"

namespace triptych {

/// The tensors that run through a model from layer to layer: hidden states, positions, segment
/// bounds, features, labels, loss. A family names its fields; what works on layers (recompute, the
/// pipeline, full sharding, the planner) sees only this list and knows no family.
///
/// Host-side facts that layers need (segment bounds, index lists) travel as CPU int64 tensors.
class Flow {
 public:
  /// The tensor of a field; an undefined tensor when the field is not there.
  const at::Tensor& get(std::string_view field) const;
  /// The tensor of a field that must be there.
  const at::Tensor& at(std::string_view field) const;
  void set(std::string_view field, at::Tensor value);
  void erase(std::string_view field);
  bool has(std::string_view field) const { return get(field).defined(); }

  using Entry = std::pair<std::string, at::Tensor>;
  const std::vector<Entry>& entries() const { return entries_; }
  std::vector<Entry>& entries() { return entries_; }

 private:
  std::vector<Entry> entries_;  // few fields: a scan beats a map
};

/// What a layer costs for a flow of given sizes; the planner and the automatic pipeline cut add it
/// up.
struct Cost {
  double forward_flop = 0;      ///< multiply and add counted as two
  double activation_bytes = 0;  ///< kept for backward
};

/// Sizes that costs depend on, of one micro-batch.
struct FlowSize {
  int64_t tokens = 0;  ///< text sequence, all samples
  int64_t label_tokens = 0;
  int64_t patches = 0;                   ///< vision sequence
  double mean_square_length = 0;         ///< sum of squared sample lengths / tokens
  double mean_square_frame_patches = 0;  ///< sum of squared frame sizes / patches
};

/// One layer of a model: a function from flow to flow with its parameters and its cost.
class Layer {
 public:
  Layer(std::string name, std::string part) : name_(std::move(name)), part_(std::move(part)) {}
  virtual ~Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  /// Changes the flow in place. Must not change a tensor of the flow in place: others may hold it.
  virtual void forward(Flow& flow) const = 0;
  virtual Cost cost(const FlowSize& size) const = 0;
  /// Pieces of it that selective recompute can choose (parallel/segments.h), by their names.
  virtual std::vector<std::string> modules() const { return {}; }

  const std::string& name() const { return name_; }  ///< path on the hub, e.g. "model.layers.3"
  const std::string& part() const { return part_; }
  const ParameterList& parameters() const { return parameters_; }
  /// For what is put beside a layer's own weights later: adapters.
  void add_parameter(ParameterPtr parameter) { parameters_.push_back(std::move(parameter)); }

 protected:
  ParameterList parameters_;

 private:
  std::string name_, part_;
};

using LayerList = std::vector<std::unique_ptr<Layer>>;

}  // namespace triptych

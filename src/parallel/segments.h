#pragma once

// What a layer says about itself so that selective recompute can choose pieces of it. A layer whose
// pieces nobody chose pays for one comparison each.

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/recompute.h"

namespace triptych {

class ActivationOffload;

/// How one layer keeps less for its backward.
struct LayerMemory {
  /// Names among `Layer::modules()` whose results are made again in backward.
  std::vector<std::string> modules;
  bool offload = false;  ///< what is kept goes to the host's memory
};

/// While it lives, this thread runs `layer` and its pieces behave as `memory` says. Must end before
/// the backward of what ran in it begins.
class LayerScope {
 public:
  /// No piece is chosen: for a run that is a repetition itself.
  LayerScope();
  /// @param offload  may be null; must outlive the graph.
  LayerScope(const Layer& layer, const LayerMemory& memory, ActivationOffload* offload);
  ~LayerScope();
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

 private:
  class Policy;
  friend class Pieces;
  LayerScope* before_;
  const std::vector<std::string>* modules_ = nullptr;
  bool trained_ = false;  ///< a parameter of the layer is
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<class SavedTensorScope> saved_;
};

/// Whether the layer that runs on this thread should do without what `module` keeps. Never where no
/// gradient goes.
class Pieces {
 public:
  /// Of a piece that runs again with its own backward (attention, mlp).
  static bool runs_again(std::string_view module, const at::Tensor& x);
  /// Of results that are made again without one.
  static bool makes_again(std::string_view module, const at::Tensor& result);
  static Flow without_gradients(const Flow& flow);
  static void declare(const std::vector<at::Tensor>& results, const std::vector<at::Tensor>& inputs,
                      TensorFunction body);
};

/// A piece of a layer from one tensor to another: `body(x, flow)`, kept as usual or, if `module` is
/// chosen, run again in backward from x. It reads of the flow only what carries no gradient.
template <class Body>
at::Tensor run_piece(std::string_view module, const at::Tensor& x, const Flow& flow, Body body) {
  if (!Pieces::runs_again(module, x)) return body(x, flow);
  return recomputed(
             {x},
             [body, side = Pieces::without_gradients(flow)](const std::vector<at::Tensor>& inputs) {
               return std::vector{body(inputs.front(), side)};
             })
      .front();
}

/// Says that `results` can be made again, bit by bit, as `body(inputs, flow)`: if `module` is
/// chosen, what autograd saves of them afterwards is not kept, and backward makes it from the
/// inputs, without gradients, when it is first needed. The body returns the results in their order
/// and reads of the flow only what carries no gradient.
template <class Body>
void can_make_again(std::string_view module, const std::vector<at::Tensor>& results,
                    const std::vector<at::Tensor>& inputs, const Flow& flow, Body body) {
  if (!Pieces::makes_again(module, results.front())) return;
  Pieces::declare(results, inputs,
                  [body, side = Pieces::without_gradients(flow)](
                      const std::vector<at::Tensor>& again) { return body(again, side); });
}

/// For one result of one tensor alone: `body(input)`.
template <class Body>
void can_make_again(std::string_view module, const at::Tensor& result, const at::Tensor& input,
                    Body body) {
  if (!Pieces::makes_again(module, result)) return;
  Pieces::declare({result}, {input}, [body](const std::vector<at::Tensor>& again) {
    return std::vector{body(again.front())};
  });
}

}  // namespace triptych

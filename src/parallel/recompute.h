#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "parallel/layer.h"

namespace triptych {

/// Runs layers, one after the other, without keeping what their backward needs: only the flow
/// before them is held, and backward runs them again. Values and gradients are bit-identical to
/// running them plainly, as a layer has no hidden state and its dropout is keyed by token.
///
/// The layers' forward runs once under no-grad and once, in backward, with grad; the nested
/// backward adds the parameters' gradients. `grad()` restricted to inputs does not work through it.
/// Only public interfaces of libtorch are used.
///
/// @param keep_attention  attention's outputs are held as well, and not computed again.
void forward_recomputed(std::span<const std::unique_ptr<Layer>> layers, Flow& flow,
                        bool keep_attention = false);

/// A function of tensors; it must own what it captures, since it runs again in backward, and what
/// it captures gets no gradient.
using TensorFunction =
    std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

/// The same for a piece of a layer. The results require a gradient, also where only parameters
/// inside do.
std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs, TensorFunction body,
                                   bool keep_attention = false);

}  // namespace triptych

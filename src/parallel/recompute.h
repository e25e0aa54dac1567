#pragma once

#include "parallel/layer.h"

namespace triptych {

/// Runs a layer without keeping what its backward needs: only the flow's own tensors are held, and
/// backward runs the layer again. Values and gradients are bit-identical to running it plainly, as
/// a layer has no hidden state and its dropout is keyed by token.
///
/// The layer's forward runs once under no-grad and once, in backward, with grad; the nested
/// backward adds the parameters' gradients. `grad()` restricted to inputs does not work through it.
void forward_recomputed(const Layer& layer, Flow& flow);

}  // namespace triptych

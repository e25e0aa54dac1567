#pragma once

// Collectives that autograd understands. Each is named after what the forward does; which backward
// belongs to it depends on what follows, so two that differ only in their backward have two names
// (docs/spec/parallelism.md, 2.2.1).
//
// Every function is the identity, and returns its argument, for no group or a group of one. Inputs
// may have any strides and are never changed; the dtype is kept, sums are taken in it. "Tokens" are
// dim 0, whose size must be a multiple of the group's where it is split. All members must call the
// same functions with the same shapes in the same order, also in backward; that holds when they
// build the same graph.

#include <ATen/core/Tensor.h>

namespace triptych {

class Group;

/// Forward: identity. Backward: sum over the ranks. In front of what each rank computes a part of,
/// from the same input.
at::Tensor copy_to_ranks(const at::Tensor& x, Group* group);

/// Forward: sum over the ranks. Backward: identity. Behind partial sums, when what follows is
/// computed by every rank alike.
at::Tensor reduce_from_ranks(const at::Tensor& x, Group* group);

/// Forward: the tokens of all ranks [n, ...] -> [size * n, ...]. Backward: sum over the ranks, each
/// takes its own tokens. In front of what each rank computes a part of.
at::Tensor gather_tokens(const at::Tensor& x, Group* group);

/// Forward: sum over the ranks, each takes its own tokens [size * n, ...] -> [n, ...]. Backward:
/// gather. Behind partial sums, when each rank goes on with its own tokens.
at::Tensor scatter_sum_tokens(const at::Tensor& x, Group* group);

/// Forward: own tokens of what every rank holds alike [size * n, ...] -> [n, ...]. Backward:
/// gather.
at::Tensor split_tokens(const at::Tensor& x, Group* group);

/// Forward: as gather_tokens. Backward: own tokens of the gradient, without a sum. In front of what
/// every rank computes alike: there the incoming gradients are equal copies, whose sum would be too
/// large by the number of ranks.
at::Tensor gather_tokens_replicated(const at::Tensor& x, Group* group);

}  // namespace triptych

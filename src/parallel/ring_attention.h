#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/varlen_attention.h"
#include "parallel/group.h"
#include "parallel/sequence_split.h"

namespace triptych {

/// Attention within the samples of a packed row whose tokens lie over the ranks of a ring: keys and
/// values go round, the blocks' results are joined by their log-sum-exp. The next block is on its
/// way while one is computed. In backward keys and values go round again, and their gradients, in
/// fp32, with them and one hop further: home. The order of all sums is fixed by the place in the
/// ring.
///
/// Causal (`split` in zigzag): of a block from an earlier rank only the early chunks are seen, by
/// all queries; a block from a later rank is seen whole, by the late chunks' queries.
///
/// @param q_THK, k_TGK, v_TGK  this rank's ring part; T = split.tokens(ring.rank()).
/// @param split  of the packed row; its ring() is the size of the group.
/// @return       [T, H, K], dtype of q.
/// Source: Ring Attention, arXiv:2310.01889.
at::Tensor ring_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                          const SequenceSplit& split, Group& ring,
                          const AttentionOptions& options = {});

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/varlen_attention.h"
#include "parallel/group.h"
#include "parallel/model_groups.h"

namespace triptych {

/// Attention within the samples of a packed row that lies over context ranks as `SequenceSplit`
/// says: heads are exchanged inside (Ulysses), keys and values go round outside (ring). With one
/// rank it is varlen_attention.
///
/// @param q_THK, k_TGK, v_TGK  this rank's tokens, rotated. What is behind them (padding) takes no
///   part and gets zeros.
/// @param cu_seqlens  host, bounds of the samples in the whole packed row.
/// @return            [T, H, K].
/// Source: USP, arXiv:2405.07719.
at::Tensor context_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                             const ModelGroups& groups, const AttentionOptions& options = {});

/// Attention within segments of a row whose tokens lie over the ranks of a group in order, in
/// pieces of any size: Ulysses.
/// @param cu_seqlens  host, bounds of the segments in the whole row.
/// @param tokens      of every rank; more of them here are padding and get zeros.
at::Tensor ulysses_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                             const std::vector<int64_t>& tokens, Group& group,
                             const AttentionOptions& options = {});

}  // namespace triptych

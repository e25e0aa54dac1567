#include "parallel/context_attention.h"

#include <span>

#include "parallel/head_exchange.h"
#include "parallel/ring_attention.h"

namespace triptych {

namespace {

/// `attend` on this rank's heads of all the group's tokens.
template <class Attend>
at::Tensor with_own_heads(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                          const std::vector<int64_t>& tokens, Group& group, const Attend& attend) {
  const auto own = scatter_heads(q_THK, k_TGK, v_TGK, tokens, group);
  // More ranks than heads: one without heads takes part in the exchanges, and in nothing else.
  const auto o_SHK = own.q.size(1) == 0 ? own.q : attend(own.q, own.k, own.v);
  return gather_heads(o_SHK, q_THK.size(1), tokens, group);
}

std::span<const int64_t> values(const at::Tensor& host) {
  return {host.const_data_ptr<int64_t>(), static_cast<size_t>(host.numel())};
}

}  // namespace

at::Tensor context_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                             const ContextGroups& groups, const AttentionOptions& options) {
  if (groups.size() == 1) return varlen_attention(q_THK, k_TGK, v_TGK, cu_seqlens, options);
  const int64_t R = ContextGroups::size(groups.ring), U = ContextGroups::size(groups.ulysses);
  const SequenceSplit split(values(cu_seqlens), R, U, options.causal);
  const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return R == 1 ? varlen_attention(q, k, v, cu_seqlens, options)
                  : ring_attention(q, k, v, split, *groups.ring, options);
  };
  if (U == 1) return attend(q_THK, k_TGK, v_TGK);
  const auto sizes = split.piece_sizes(ContextGroups::rank(groups.ring));
  return with_own_heads(q_THK, k_TGK, v_TGK, sizes, *groups.ulysses, attend);
}

at::Tensor ulysses_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                             const std::vector<int64_t>& tokens, Group& group,
                             const AttentionOptions& options) {
  return with_own_heads(q_THK, k_TGK, v_TGK, tokens, group,
                        [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                          return varlen_attention(q, k, v, cu_seqlens, options);
                        });
}

}  // namespace triptych

#include "parallel/context_attention.h"

#include <ATen/ops/constant_pad_nd.h>

#include <span>

#include "base/error.h"
#include "parallel/head_exchange.h"
#include "parallel/ring_attention.h"
#include "parallel/sequence_split.h"

namespace triptych {

namespace {

/// `attend` on the first `tokens` of q, k and v; zeros for padding behind them.
template <class Attend>
at::Tensor without_padding(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                           const at::Tensor& v_TGK, int64_t tokens, const Attend& attend) {
  const int64_t padding = q_THK.size(0) - tokens;
  require(padding >= 0, "context attention: ", q_THK.sizes(), " must hold at least ", tokens,
          " tokens");
  if (padding == 0) return attend(q_THK, k_TGK, v_TGK);
  const auto out =
      attend(q_THK.narrow(0, 0, tokens), k_TGK.narrow(0, 0, tokens), v_TGK.narrow(0, 0, tokens));
  return at::constant_pad_nd(out, {0, 0, 0, 0, 0, padding});
}

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
                             const ModelGroups& groups, const AttentionOptions& options) {
  if (groups.context_size() == 1) return varlen_attention(q_THK, k_TGK, v_TGK, cu_seqlens, options);
  auto &ring = *groups.ring, &ulysses = *groups.ulysses;
  const SequenceSplit split(values(cu_seqlens), ring.size(), ulysses.size(), options.causal);
  const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ring.size() == 1 ? varlen_attention(q, k, v, cu_seqlens, options)
                            : ring_attention(q, k, v, split, ring, options);
  };
  const auto with_heads = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return ulysses.size() == 1
               ? attend(q, k, v)
               : with_own_heads(q, k, v, split.piece_sizes(ring.rank()), ulysses, attend);
  };
  return without_padding(q_THK, k_TGK, v_TGK, split.tokens(ring.rank(), ulysses.rank()),
                         with_heads);
}

at::Tensor ulysses_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                             const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                             const std::vector<int64_t>& tokens, Group& group,
                             const AttentionOptions& options) {
  const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return varlen_attention(q, k, v, cu_seqlens, options);
  };
  const auto with_heads = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return with_own_heads(q, k, v, tokens, group, attend);
  };
  return without_padding(q_THK, k_TGK, v_TGK, tokens[static_cast<size_t>(group.rank())],
                         with_heads);
}

}  // namespace triptych

#include "kernels/varlen_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "kernels/kept_results.h"
#include "kernels/reference.h"
#include "kernels/varlen_attention_cpu.h"

namespace triptych {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  require(q.dim() == 3 && k.dim() == 3 && v.dim() == 3,
          "attention: q, k and v must be [tokens, heads, head dim]; q ", q.sizes(), ", k ",
          k.sizes(), ", v ", v.sizes());
  require(k.sizes() == v.sizes() && q.size(2) == k.size(2), "attention: k ", k.sizes(), " and v ",
          v.sizes(), " must be alike, with q's head dim; q ", q.sizes());
  require(k.size(1) > 0 && q.size(1) % k.size(1) == 0, "attention: query heads H=", q.size(1),
          " must be a multiple of key/value heads G=", k.size(1), "; q ", q.sizes(), ", k ",
          k.sizes());
  require(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(),
          "attention: q is ", q.scalar_type(), ", k ", k.scalar_type(), ", v ", v.scalar_type(),
          "; one dtype is needed");
}

void check_bounds(const at::Tensor& cu_seqlens, int64_t T) {
  const auto bounds = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  const auto* b = bounds.const_data_ptr<int64_t>();
  const int64_t n = bounds.numel();
  require(n >= 1 && b[0] == 0 && b[n - 1] == T, "attention: segment bounds must run from 0 to the ",
          T, " tokens");
  for (int64_t i = 1; i < n; ++i) {
    require(b[i] >= b[i - 1], "attention: segment bound ", i, " = ", b[i], " lies before bound ",
            i - 1, " = ", b[i - 1]);
  }
}

using reference::Pair;
using reference::Triple;

Pair forward_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal,
                 double scale) {
  return (has_fast_attention(q, k, v) ? fast_varlen_attention : reference::varlen_attention)(
      q, k, v, cu_queries, cu_keys, causal, scale);
}
Triple backward_cpu(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                    const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal,
                    double scale, bool wide) {
  return (has_fast_attention(q, k, v) ? fast_varlen_attention_backward
                                      : reference::varlen_attention_backward)(
      dout, q, k, v, out, lse, cu_queries, cu_keys, causal, scale, wide);
}
at::Tensor cached_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  return (has_fast_attention(q, k, v) && q.size(0) > 0
              ? fast_cached_attention
              : reference::cached_attention)(q, k, v, scale);
}

Pair call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
          const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal, double scale) {
  static const auto op =
      find_operator<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, bool, double)>("varlen_attention");
  return op.call(q, k, v, cu_queries, cu_keys, causal, scale);
}
Triple call_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                     const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal,
                     double scale, bool wide) {
  static const auto op = find_operator<Triple(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
      const at::Tensor&, const at::Tensor&, const at::Tensor&, bool, double, bool)>(
      "varlen_attention_backward");
  return op.call(dout, q, k, v, out, lse, cu_queries, cu_keys, causal, scale, wide);
}

class VarlenAttention : public torch::autograd::Function<VarlenAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const at::Tensor& cu_seqlens, bool causal,
                               double scale) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [out, lse] = kept_or_computed([&] {
      const auto [o, l] = call(q, k, v, cu_seqlens, cu_seqlens, causal, scale);
      return KeptResults::Pair(o, l);
    });
    ctx->save_for_backward({q, k, v, out, lse, cu_seqlens});
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["scale"] = scale;
    ctx->mark_non_differentiable({lse});
    return {out, lse};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto s = ctx->get_saved_variables();
    const auto [dq, dk, dv] = call_backward(grads[0], s[0], s[1], s[2], s[3], s[4], s[5], s[5],
                                            ctx->saved_data["causal"].toBool(),
                                            ctx->saved_data["scale"].toDouble(), /*wide=*/false);
    return {dq, dk, dv, {}, {}, {}};
  }
};

Pair autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
              const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal, double scale) {
  require(cu_queries.is_same(cu_keys),
          "attention: blocks over other keys have no gradient of their own");
  const auto out = VarlenAttention::apply(q, k, v, cu_queries, causal, scale);
  return {out[0], out[1]};
}

double scale_of(const at::Tensor& q, const std::optional<double>& scale) {
  return scale.value_or(1 / std::sqrt(static_cast<double>(q.size(2))));
}

}  // namespace

AttentionResult varlen_attention_with_lse(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                                          const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                                          const AttentionOptions& options) {
  check(q_THK, k_TGK, v_TGK);
  require(q_THK.size(0) == k_TGK.size(0), "attention: ", q_THK.size(0), " queries for ",
          k_TGK.size(0), " keys");
  check_bounds(cu_seqlens, q_THK.size(0));
  auto [out, lse] = call(q_THK, k_TGK, v_TGK, cu_seqlens, cu_seqlens, options.causal,
                         scale_of(q_THK, options.scale));
  return {out, lse};
}

at::Tensor varlen_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                            const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                            const AttentionOptions& options) {
  return varlen_attention_with_lse(q_THK, k_TGK, v_TGK, cu_seqlens, options).out;
}

namespace {

void check_block(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal) {
  check(q, k, v);
  check_bounds(cu_queries, q.size(0));
  check_bounds(cu_keys, k.size(0));
  require(cu_queries.numel() == cu_keys.numel(), "attention: ", cu_queries.numel() - 1,
          " segments of queries, ", cu_keys.numel() - 1, " of keys");
  require(!causal || cu_queries.is_same(cu_keys) || cu_queries.equal(cu_keys),
          "attention: a causal block needs the same bounds for queries and keys");
}

}  // namespace

AttentionResult attention_block(const at::Tensor& q_THK, const at::Tensor& k_SGK,
                                const at::Tensor& v_SGK, const at::Tensor& cu_queries,
                                const at::Tensor& cu_keys, const AttentionOptions& options) {
  check_block(q_THK, k_SGK, v_SGK, cu_queries, cu_keys, options.causal);
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [out, lse] = call(q_THK, k_SGK, v_SGK, cu_queries, cu_keys, options.causal,
                         scale_of(q_THK, options.scale));
  return {out, lse};
}

AttentionGradients attention_block_backward(const at::Tensor& dout_THK, const at::Tensor& q_THK,
                                            const at::Tensor& k_SGK, const at::Tensor& v_SGK,
                                            const at::Tensor& out_THK, const at::Tensor& lse_TH,
                                            const at::Tensor& cu_queries, const at::Tensor& cu_keys,
                                            const AttentionOptions& options) {
  check_block(q_THK, k_SGK, v_SGK, cu_queries, cu_keys, options.causal);
  require(dout_THK.sizes() == q_THK.sizes() && out_THK.sizes() == q_THK.sizes() &&
              lse_TH.sizes() == q_THK.sizes().slice(0, 2),
          "attention: dout ", dout_THK.sizes(), ", out ", out_THK.sizes(), " and lse ",
          lse_TH.sizes(), " must fit q ", q_THK.sizes());
  const at::AutoDispatchBelowADInplaceOrView below;
  auto [dq, dk, dv] =
      call_backward(dout_THK, q_THK, k_SGK, v_SGK, out_THK, lse_TH, cu_queries, cu_keys,
                    options.causal, scale_of(q_THK, options.scale), /*wide=*/true);
  return {dq, dk, dv};
}

at::Tensor cached_attention(const at::Tensor& q_THK, const at::Tensor& k_SGK,
                            const at::Tensor& v_SGK, std::optional<double> scale) {
  check(q_THK, k_SGK, v_SGK);
  require(q_THK.size(0) <= k_SGK.size(0), "attention: ", q_THK.size(0),
          " new tokens in a cache of ", k_SGK.size(0));
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>(
          "cached_attention");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(q_THK, k_SGK, v_SGK, scale_of(q_THK, scale));
}

TORCH_LIBRARY_FRAGMENT(triptych, m) {
  m.def(
      "varlen_attention(Tensor q, Tensor k, Tensor v, Tensor cu_queries, Tensor cu_keys, bool "
      "causal, float scale) -> (Tensor, Tensor)");
  m.def(
      "varlen_attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor "
      "lse, Tensor cu_queries, Tensor cu_keys, bool causal, float scale, bool wide) -> (Tensor, "
      "Tensor, Tensor)");
  m.def("cached_attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor");
}
TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) {
  m.impl("varlen_attention", reference::varlen_attention);
  m.impl("varlen_attention_backward", reference::varlen_attention_backward);
  m.impl("cached_attention", reference::cached_attention);
}
TORCH_LIBRARY_IMPL(triptych, CPU, m) {
  m.impl("varlen_attention", forward_cpu);
  m.impl("varlen_attention_backward", backward_cpu);
  m.impl("cached_attention", cached_cpu);
}
TORCH_LIBRARY_IMPL(triptych, Autograd, m) { m.impl("varlen_attention", autograd); }

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace triptych {

struct AttentionOptions {
  bool causal = false;          ///< query i of a segment sees keys 0..i of that segment
  std::optional<double> scale;  ///< default K^-1/2
};

struct AttentionResult {
  at::Tensor out;  ///< [T, H, K], dtype of q, contiguous
  at::Tensor
      lse;  ///< [T, H], fp32 (fp64 for fp64): log sum_s exp(scale * <q, k_s>); not differentiable
};

/// Attention within segments of one packed row; segments never see each other.
///
///   y[t,h] = sum_s softmax_s(scale * <q[t,h], k[s,g]>) * v[s,g],   g = h / (H / G), s in t's
///   segment
///
/// @param q_THK  [T, H, K] bf16, fp32 or fp64; last dim contiguous, other strides free.
/// @param k_TGK, v_TGK  [T, G, K], dtype and device of q; G divides H.
/// @param cu_seqlens  [S + 1] int32 or int64 on the CPU, from 0 to T, not decreasing.
/// @throws Error on mismatched shapes or dtypes; the message names both.
///
/// No buffer grows with the square of a segment; softmax and both accumulations are fp32. The
/// result is the same on any number of threads. Backward recomputes the probabilities from lse.
/// Cost: 4 K H sum_i len_i^2 flop forward, half of it causal; 2.5 times that backward.
/// Backends: cpu (bf16 with AVX-512), elsewhere ATen's attention, one call per distinct length.
/// Source: FlashAttention-2, arXiv:2307.08691. Reference: varlen_attention_ref.cpp.
at::Tensor varlen_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                            const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                            const AttentionOptions& options = {});

/// The same with the log-sum-exp of every query, which joins partial results over key blocks.
AttentionResult varlen_attention_with_lse(const at::Tensor& q_THK, const at::Tensor& k_TGK,
                                          const at::Tensor& v_TGK, const at::Tensor& cu_seqlens,
                                          const AttentionOptions& options = {});

/// One block of attention over keys that lie elsewhere: segment i of the queries sees all keys of
/// segment i, and of no other. A query whose segment has no key gets out 0 and lse -inf. Blocks
/// over parts of the keys are joined by their lse. No gradient: see attention_block_backward.
///
/// @param q_THK  [T, H, K];  @param k_SGK, v_SGK  [S, G, K].
/// @param cu_queries, cu_keys  [segments + 1], as cu_seqlens above, to T and to S; equal when
///   causal.
AttentionResult attention_block(const at::Tensor& q_THK, const at::Tensor& k_SGK,
                                const at::Tensor& v_SGK, const at::Tensor& cu_queries,
                                const at::Tensor& cu_keys, const AttentionOptions& options = {});

struct AttentionGradients {
  at::Tensor dq, dk, dv;  ///< fp32 (fp64 for fp64), contiguous
};

/// What one block adds to the gradients. With the out and lse of the whole attention (all blocks
/// joined), the sum over the blocks is the gradient of the whole:
///   P = exp(scale q k^T - lse), dS = P (dout v^T - rowsum(dout out)).
/// @param lse  fp32 (fp64 for fp64), finite for every query whose segment has a key.
AttentionGradients attention_block_backward(const at::Tensor& dout_THK, const at::Tensor& q_THK,
                                            const at::Tensor& k_SGK, const at::Tensor& v_SGK,
                                            const at::Tensor& out_THK, const at::Tensor& lse_TH,
                                            const at::Tensor& cu_queries, const at::Tensor& cu_keys,
                                            const AttentionOptions& options = {});

/// Attention of the newest T tokens over a cache of S >= T tokens whose last T are their own;
/// always causal. For generation (T = 1) and for prefill in pieces. No gradient.
///
/// @param q_THK  [T, H, K];  @param k_SGK, v_SGK  [S, G, K], any strides with a contiguous last
/// dim.
/// @return       [T, H, K].
at::Tensor cached_attention(const at::Tensor& q_THK, const at::Tensor& k_SGK,
                            const at::Tensor& v_SGK, std::optional<double> scale = {});

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace triptych {

struct LinearCrossEntropyOptions {
  /// Most bytes for logits that are kept between the two passes over the vocabulary. When all fit,
  /// each logit is computed once; otherwise the second pass computes them again, chunk by chunk.
  int64_t logits_bytes = int64_t{256} << 20;
};

/// The weight's rows are words [first, first + rows) of `size`; others hold the rest. `join` is
/// called once between the two passes over the vocabulary with fp32 (fp64) tensors [N]: the
/// log-sum-exp over these words and the logit of the label, 0 where it is not among them. It
/// replaces them in place by the log-sum-exp over all words and the sum of the logits.
struct VocabularyPart {
  int64_t first = 0, size = 0;
  std::function<void(const at::Tensor& lse_N, const at::Tensor& target_N)> join;
};

struct CrossEntropy {
  at::Tensor total;   ///< fp64 scalar: sum_n token_weights[n] * losses[n]; differentiable
  at::Tensor losses;  ///< [N] fp32 (fp64 for fp64 inputs), 0 for ignored rows; not differentiable
};

/// Output projection and cross entropy without ever holding all logits.
///
///   losses[n] = logsumexp_v(z[n, v]) - z[n, labels[n]],   z = h W^T
///
/// z is rounded to h's dtype (the reference's logits are in it), everything after is fp32.
///
/// @param h_ND       [N, D] bf16, fp32 or fp64. Pass label rows only; N = 0 gives total 0.
/// @param weight_VD  [V, D], dtype of h.
/// @param labels_N   int64 in [0, V); negative labels are ignored (loss 0, gradient 0).
/// @param token_weights_N  fp32 or fp64; all ones when undefined. Not differentiated.
/// @throws Error     on mismatched shapes or dtypes, and on a label >= V.
///
/// When gradients are enabled and wanted, the forward computes them at once (while the logits are
/// there) and backward only scales them by the incoming scalar; so the forward costs all of
/// 6 N V D flop, and the gradient of W, in W's dtype, lives from the forward on.
/// Backends: cpu (bf16 with AVX-512), elsewhere ATen in chunks of the vocabulary.
/// Reference: linear_cross_entropy_ref.cpp. Source of the idea: arXiv:2410.10989, arXiv:2411.09009.
CrossEntropy linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                  const at::Tensor& labels_N,
                                  const at::Tensor& token_weights_N = {},
                                  const LinearCrossEntropyOptions& options = {});

/// The same where `weight_VD` is a part of the vocabulary; labels are numbers of the whole one.
/// Total and losses are those of the whole, the gradient of h is this part's share, to be summed
/// over all parts. `join` is called also for N = 0.
CrossEntropy linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                  const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                                  const LinearCrossEntropyOptions& options,
                                  const VocabularyPart& part);

}  // namespace triptych

#pragma once

// The mathematics of every kernel as a composition of ATen operators: runs on any device and in
// fp64, serves devices without a kernel of their own, and is what the tests compare against.

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

#include "kernels/adamw.h"
#include "kernels/linear_cross_entropy.h"

namespace triptych::reference {

using Pair = std::tuple<at::Tensor, at::Tensor>;
using Triple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// (y, rstd)
Pair rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
/// (dx, dweight); `residual` is added to dx when defined.
Pair rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, const std::optional<at::Tensor>& residual);

/// `inverse` rotates by the negative angle.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse);

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
/// (dgate, dup)
Pair swiglu_backward(const at::Tensor& dy, const at::Tensor& gate, const at::Tensor& up);

/// (total, losses, dh, dweight); the gradients are of `total` and undefined unless asked for.
/// Chunks of the vocabulary of at most `logits_bytes`. `part`: null for the whole vocabulary.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy(
    const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
    const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
    const VocabularyPart* part = nullptr);

/// (out, lse)
Pair varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const at::Tensor& cu_seqlens, bool causal, double scale);
/// (dq, dk, dv)
Triple varlen_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& cu_seqlens, bool causal, double scale);
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale);

/// One tensor of adamw(): dense, in place.
void adamw(const AdamWTensor& tensor, const AdamWStep& step);

}  // namespace triptych::reference

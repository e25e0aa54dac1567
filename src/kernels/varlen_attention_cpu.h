#pragma once

// The AVX-512 bf16 path of the attention operators. Internal to this folder.

#include <ATen/core/Tensor.h>

#include "kernels/reference.h"

namespace triptych {

/// Whether this CPU and these tensors have the fast path; otherwise use the reference.
bool has_fast_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

/// As in reference.h. Any strides with a contiguous last dim.
reference::Pair fast_varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& cu_queries, const at::Tensor& cu_keys,
                                      bool causal, double scale);
reference::Triple fast_varlen_attention_backward(const at::Tensor& dout, const at::Tensor& q,
                                                 const at::Tensor& k, const at::Tensor& v,
                                                 const at::Tensor& out, const at::Tensor& lse,
                                                 const at::Tensor& cu_queries,
                                                 const at::Tensor& cu_keys, bool causal,
                                                 double scale, bool wide);
at::Tensor fast_cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 double scale);

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

namespace triptych {

/// silu(gate) * up with silu(g) = g / (1 + exp(-g)).
///
/// silu is computed in fp32 and rounded to the dtype before the product, as two operators do.
///
/// @param gate, up  same shape and dtype (bf16, fp32, fp64).
/// @return          same shape and dtype.
/// @throws Error    on different shapes or dtypes.
///
/// Keeps gate and up; backward recomputes silu and writes both gradients in one pass.
/// Reference: swiglu_ref.cpp. Source: arXiv:2002.05202.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// The same for one tensor [..., 2 I] that holds gate, then up, in its last dim: one matrix product
/// makes both.  @return [..., I].
at::Tensor swiglu_packed(const at::Tensor& gate_up);

}  // namespace triptych

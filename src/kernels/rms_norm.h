#pragma once

#include <ATen/core/Tensor.h>

namespace triptych {

/// Root-mean-square norm over the last dim.
///
///   y = round(x * rstd) * weight,   rstd = (mean(x^2) + eps)^-1/2
///
/// The statistics and x * rstd are fp32; the normed value is rounded to x's dtype before it is
/// multiplied by the weight in that dtype, as the reference does. Multiplying in fp32 and rounding
/// once is another bf16 result.
///
/// @param x_TD       [..., D], bf16, fp32 or fp64, any device; last dim contiguous or copied.
/// @param weight_D   [D], dtype of x.
/// @return           [..., D], dtype of x.
/// @throws Error     on a weight of another size or dtype; the message names both.
///
/// Cost: reads x and writes y once; keeps x and rstd [T] for backward, which reads x and dy and
/// writes dx in one pass (dweight is summed in fp32 over fixed blocks of rows, so it does not
/// depend on the number of threads). Backends: cpu (bf16, fp32); elsewhere the ATen reference.
/// Source: arXiv:1910.07467. Reference: rms_norm_ref.cpp.
at::Tensor rms_norm(const at::Tensor& x_TD, const at::Tensor& weight_D, double eps);

struct AddRmsNorm {
  at::Tensor sum;     ///< x + r, rounded to their dtype: the residual stream
  at::Tensor normed;  ///< rms_norm of it
};

/// (x + r, rms_norm(x + r)) in one pass; backward adds both incoming gradients in one pass as well.
/// Values and rounding are those of the two steps one after another.
AddRmsNorm add_rms_norm(const at::Tensor& x_TD, const at::Tensor& r_TD, const at::Tensor& weight_D,
                        double eps);

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

namespace triptych {

/// Rotary positions, half-split: y = x * cos + concat(-x[K/2:], x[:K/2]) * sin.
///
/// The tables' dtype chooses the arithmetic:
///  - tables in x's dtype: both products and the sum are rounded to it, as a composition of three
///    operators does (text of Qwen2.5-VL in bf16);
///  - fp32 tables with bf16 x: everything in fp32, one rounding at the end (its vision tower).
///
/// @param x_THK  [T, H, K], bf16, fp32 or fp64; any strides with a contiguous last dim. K even.
/// @param cos_TK, sin_TK  [T, K], fp32 or x's dtype. Not differentiated.
/// @return       [T, H, K], contiguous, dtype of x.
/// @throws Error on mismatched shapes or dtypes.
///
/// Backward rotates by the negative angle; for it to be the exact transpose the tables' halves must
/// be equal (cos[:, i] == cos[:, i + K/2]), as every rotary table's are.
/// Keeps only the tables for backward. Reference: rotary_ref.cpp. Source: arXiv:2104.09864.
at::Tensor rotary(const at::Tensor& x_THK, const at::Tensor& cos_TK, const at::Tensor& sin_TK);

struct RotatedQk {
  at::Tensor q, k;
};
/// q [T, H, K] and k [T, G, K] by the same tables.
RotatedQk rotary_qk(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& cos_TK,
                    const at::Tensor& sin_TK);

/// Rotates in place and returns x; for tensors nobody differentiates (a frozen tower, generation).
at::Tensor& rotary_(at::Tensor& x_THK, const at::Tensor& cos_TK, const at::Tensor& sin_TK);

struct RotatedQkv {
  at::Tensor q, k, v;  ///< [T, H, K] each; v is a view of the input
};
/// Splits qkv [T, 3, H, K] (all q, all k, all v) and rotates q and k. Without gradients they are
/// rotated inside the input's own memory, which must then not be used by anybody else.
RotatedQkv split_rotary(const at::Tensor& qkv_T3HK, const at::Tensor& cos_TK,
                        const at::Tensor& sin_TK);

}  // namespace triptych

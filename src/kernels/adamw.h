#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace triptych {

/// What is common to all tensors of one optimizer step.
struct AdamWStep {
  int64_t step = 1;  ///< counts from 1
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double grad_scale = 1;  ///< gradients are multiplied by this first: clipping and normalisation
};

/// One parameter, or this rank's piece of one, with its state. All tensors contiguous, same number
/// of elements (flat or shaped). The fp32 master weights are kept in one of three ways:
///  - weight fp32: it is the master; `master` and `low` undefined;
///  - weight bf16 and `low` int16: master = join(weight, low), 2 bytes instead of 4 (split_master);
///  - weight bf16 and `master` fp32: the weight is rounded from it to nearest.
struct AdamWTensor {
  at::Tensor weight;
  at::Tensor grad;          ///< bf16 or fp32; an ATen sparse tensor is not taken, see `rows`
  at::Tensor exp_avg;       ///< fp32
  at::Tensor exp_avg_sq;    ///< fp32
  at::Tensor low;           ///< int16 or undefined
  at::Tensor master;        ///< fp32 or undefined
  double weight_decay = 0;  ///< decoupled: master *= 1 - learning_rate * weight_decay first

  /// Row-sparse gradient of an embedding [V, D]: `grad` is [n, D] for the sorted, distinct row
  /// numbers `rows` (int64 [n]). Other rows have gradient zero. `touched` (uint8 [V], kept by the
  /// caller, zero at the start) remembers rows that ever had a gradient: the others have zero
  /// moments, so they only decay, and not even that without weight decay, and their moments' pages
  /// are never touched (allocate them with lazy_zeros). The result is that of a dense gradient.
  at::Tensor rows;
  at::Tensor touched;
};

/// One AdamW step on all tensors, in one parallel region and one pass over memory.
///
/// The order of operations is torch.optim.AdamW's (decay, moments, denominator sqrt(v) / sqrt(1 -
/// beta2^t) + eps, update), fp32 throughout; equal to it to some 1e-7 relative.
/// Source: arXiv:1711.05101. Reference: adamw_ref.cpp.
/// @throws Error on sizes or dtypes that do not belong together.
void adamw(std::span<const AdamWTensor> tensors, const AdamWStep& step);

/// The fp32 master as a bf16 weight and an int16 rest: bits(master) = (bits(weight) << 16) + low.
///
/// The weight is the master rounded to the nearest bf16, ties away from zero (so it differs from
/// round-to-nearest-even only at exact ties), and the pair gives every finite value and infinity
/// back bit for bit. A NaN stays a NaN.
struct SplitMaster {
  at::Tensor weight;  ///< bf16
  at::Tensor low;     ///< int16
};
SplitMaster split_master(const at::Tensor& master);
at::Tensor join_master(const at::Tensor& weight, const at::Tensor& low);

/// Sum of squares of all elements of all tensors (bf16, fp32 or fp64), accumulated in fp64 over
/// fixed blocks: the same on any number of threads. Not finite exactly when some element is not
/// finite, so it is the finite check as well.
double sum_of_squares(std::span<const at::Tensor> tensors);

/// main += grad for an fp32 main gradient and a bf16 or fp32 gradient of the same shape.
void accumulate_(at::Tensor& main, const at::Tensor& grad);

/// For `touched` after loading a state: 1 where a row of exp_avg or exp_avg_sq [V, D] is not all 0.
at::Tensor touched_rows(const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq);

}  // namespace triptych

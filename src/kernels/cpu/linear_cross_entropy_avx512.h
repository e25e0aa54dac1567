#pragma once

// The vocabulary projection with its loss and gradients for few rows (up to some hundreds): a slab
// of the vocabulary at a time, so that a slab is one thread's work and nothing is shared.
//
// N rows, padded to Np, a multiple of 32   D hidden size, a multiple of 32   V vocabulary

#include <cstdint>

#include "kernels/cpu/bf16.h"

namespace triptych::cpu::avx512 {

struct HeadShape {
  int64_t N, Np, D;
};

/// h [N, D] in the two layouts the products want: columns [D / 2, Np] pairs along D, and rows
/// [Np / 2, D] pairs along N; padding is zero.
void pack_head_rows(const HeadShape& shape, const Bf16* h, uint32_t* columns, uint32_t* rows);

/// Logits [count, Np] of `count` vocabulary rows at `weight` [count, D], rounded to bf16; updates
/// the running maximum and sum of exp(logit - maximum), [Np] each.
void head_logits(const HeadShape& shape, const uint32_t* columns, const Bf16* weight, int64_t count,
                 Bf16* logits, float* maximum, float* sum);

struct HeadGradients {
  const uint32_t* rows;   ///< pack_head_rows
  const float* lse;       ///< [Np]
  const float* weights;   ///< [Np], 0 in the padding and for ignored rows
  const int64_t* labels;  ///< [Np], counted from this slab's first vocabulary row
  Bf16* dweight;          ///< [count, D] or null
  float* dh;              ///< [Np, D], added to, or null
};
/// Gradients of sum_n weights[n] * loss[n] from the logits of head_logits.
void head_gradients(const HeadShape& shape, const HeadGradients& g, const Bf16* weight,
                    int64_t count, const Bf16* logits);

}  // namespace triptych::cpu::avx512

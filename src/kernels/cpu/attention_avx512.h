#pragma once

// Attention of one segment and one key/value head on AVX-512 bf16.
//
// L keys of the segment, padded to Lp, a multiple of 16   K head dim, a multiple of 16
// Strides are in numbers, even, and those of tokens; the K numbers of a head are contiguous.

#include <cstdint>

#include "kernels/cpu/bf16.h"

namespace triptych::cpu::avx512 {

/// Rows of one head: row t starts at `data + t * stride`.
struct Rows {
  const Bf16* data = nullptr;
  int64_t stride = 0;
};
struct RowsOut {
  Bf16* data = nullptr;
  int64_t stride = 0;
};

struct AttentionShape {
  int64_t L = 0, Lp = 0, K = 0;
  float scale = 1;
  bool causal = false;
  int64_t offset = 0;  ///< causal: query t sees keys 0 .. t + offset
};

/// [K / 2, Lp]: pairs along K, transposed; zero beyond L.
void pack_across(const AttentionShape& s, Rows rows, uint32_t* out);
/// [Lp / 2, K]: pairs along the tokens; zero beyond L.
void pack_along(const AttentionShape& s, Rows rows, uint32_t* out);

/// Queries [begin, end) of one query head. `keys` from pack_across, `values` from pack_along. lse
/// of query t goes to lse[t * lse_stride].
void attention_forward(const AttentionShape& s, Rows q, int64_t begin, int64_t end,
                       const uint32_t* keys, const uint32_t* values, RowsOut out, float* lse,
                       int64_t lse_stride);

/// What one query head adds to its key/value head's gradients.
struct AttentionBackward {
  Rows q, dout, out;
  const float* lse;
  int64_t lse_stride;
  const uint32_t* keys_across;    ///< pack_across of k
  const uint32_t* keys_along;     ///< pack_along of k
  const uint32_t* values_across;  ///< pack_across of v
  int64_t queries = 0;
  RowsOut dq;                ///< rounded to bf16, or
  float* dq_wide = nullptr;  ///< fp32 with dq_wide_stride
  int64_t dq_wide_stride = 0;
  float *dk, *dv;  ///< [Lp, K] fp32, added to
};
void attention_backward(const AttentionShape& s, const AttentionBackward& a);

/// Rounds the first L rows of [.., K] fp32 to rows of bf16.
void round_rows(const AttentionShape& s, const float* from, RowsOut to);

}  // namespace triptych::cpu::avx512

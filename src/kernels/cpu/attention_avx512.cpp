#include "kernels/cpu/attention_avx512.h"

#include <cmath>

#include "kernels/cpu/tile_avx512.h"

namespace triptych::cpu::avx512 {
namespace {

const uint32_t* as_pairs(const Bf16* p) { return reinterpret_cast<const uint32_t*>(p); }
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

__mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// Keys that query `row` sees.
int64_t seen(const AttentionShape& s, int64_t row) {
  return s.causal ? std::min(s.L, row + s.offset + 1) : s.L;
}

// Softmax of scores[0, n) into bf16 numbers, zero up to `width`, not yet divided by their sum.
// Returns the sum; sets `most` to the largest scaled score.
float softmax_row(const float* scores, int64_t n, int64_t width, float scale, Bf16* out,
                  float& most) {
  __m512 greatest = _mm512_set1_ps(-INFINITY);
  for (int64_t i = 0; i < n; i += 16) {
    greatest =
        _mm512_mask_max_ps(greatest, first_lanes(n - i), greatest, _mm512_loadu_ps(scores + i));
  }
  const float largest = _mm512_reduce_max_ps(greatest);
  const __m512 factor = _mm512_set1_ps(scale), shift = _mm512_set1_ps(largest * scale);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < width; i += 16) {
    const __m512 e = exp(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), factor, shift));
    const __m512 kept = _mm512_maskz_mov_ps(first_lanes(n - i), e);
    sum = _mm512_add_ps(sum, kept);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), (__m256i)_mm512_cvtneps_pbh(kept));
  }
  most = largest * scale;
  return _mm512_reduce_add_ps(sum);
}

// One thread's scratch, kept between calls: attention runs once a layer on the same sizes.
struct Scratch {
  Buffer<float> scores, products, dq;
  Buffer<uint32_t> p_pairs, ds_pairs, q_along, dout_along;
  Buffer<Bf16> probabilities, ds_rows;
};
Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

}  // namespace

void pack_across(const AttentionShape& s, Rows rows, uint32_t* out) {
  transpose_pairs(rows.data, s.L, rows.stride, s.K, s.Lp, s.Lp, out);
}

void pack_along(const AttentionShape& s, Rows rows, uint32_t* out) {
  for (int64_t t = 0; t < s.Lp; t += 2) {
    interleave(t < s.L ? rows.data + t * rows.stride : nullptr,
               t + 1 < s.L ? rows.data + (t + 1) * rows.stride : nullptr, s.K, out + t / 2 * s.K);
  }
}

void attention_forward(const AttentionShape& s, Rows q, int64_t begin, int64_t end,
                       const uint32_t* keys, const uint32_t* values, RowsOut out, float* lse,
                       int64_t lse_stride) {
  // As many rows as keep scores (4 bytes) and probabilities (2) in the second-level cache.
  const int64_t block = std::clamp<int64_t>((int64_t{256} << 10) / (6 * s.Lp), 6, 48) / 6 * 6;
  float* scores = scratch().scores.at_least(block * s.Lp);
  Bf16* probabilities = scratch().probabilities.at_least(block * s.Lp);
  float inverse[48];
  for (int64_t first = begin; first < end; first += block) {
    const int64_t rows = std::min(block, end - first);
    const int64_t width = round_up(seen(s, first + rows - 1), 16);
    product({as_pairs(q.data + first * q.stride), q.stride / 2, 1}, {keys, s.Lp}, rows, width,
            s.K / 2, [&](const auto& tile, int64_t row, int64_t column) {
              tile.store(scores + row * s.Lp + column, s.Lp);
            });
    for (int64_t r = 0; r < rows; ++r) {
      float most = 0;
      const float sum = softmax_row(scores + r * s.Lp, seen(s, first + r), width, s.scale,
                                    probabilities + r * s.Lp, most);
      inverse[r] = 1 / sum;
      lse[(first + r) * lse_stride] = most + std::log(sum);
    }
    product({as_pairs(probabilities), s.Lp / 2, 1}, {values, s.K}, rows, s.K, width / 2,
            [&](auto& tile, int64_t row, int64_t column) {
              tile.scale_rows(inverse + row);
              tile.store(out.data + (first + row) * out.stride + column, out.stride);
            });
  }
}

namespace {

constexpr int64_t kQueryBlock = 60;  // ten tiles; 30 pairs for the gradients of keys and values
constexpr int64_t kKeyBlock = 256;

float dot(const Bf16* a, const Bf16* b, int64_t n) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < n; i += 16) sum = _mm512_fmadd_ps(widen(a + i), widen(b + i), sum);
  return _mm512_reduce_add_ps(sum);
}

// One query block against one key block.
struct BlockPair {
  const AttentionShape& s;
  const AttentionBackward& a;
  Scratch& w;
  int64_t first, rows;       // queries
  int64_t first_key, width;  // keys, a multiple of 16
  const float* delta;

  // From scores and dP to P and dS, in the layouts that the three products want.
  void probabilities() const {
    const __m512 scale = _mm512_set1_ps(s.scale);
    for (int64_t r = 0; r < rows; r += 2) {
      for (int64_t c = 0; c < width; c += 16) {
        __m512i p_pair = _mm512_setzero_si512(), ds_pair = _mm512_setzero_si512();
        for (int64_t odd = 0; odd < 2 && r + odd < rows; ++odd) {
          const int64_t row = r + odd, query = first + row, at = row * kKeyBlock + c;
          const auto mask = first_lanes(seen(s, query) - first_key - c);
          const __m512 shift = _mm512_set1_ps(a.lse[query * a.lse_stride]);
          const __m512 p = _mm512_maskz_mov_ps(
              mask, exp(_mm512_fmsub_ps(_mm512_loadu_ps(&w.scores[at]), scale, shift)));
          const __m512 dp =
              _mm512_sub_ps(_mm512_loadu_ps(&w.products[at]), _mm512_set1_ps(delta[row]));
          const __m512 ds = _mm512_mul_ps(_mm512_mul_ps(p, dp), scale);
          const auto ds_half = (__m256i)_mm512_cvtneps_pbh(ds);
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(&w.ds_rows[at]), ds_half);
          const auto shift_bits = static_cast<unsigned>(16 * odd);
          p_pair = _mm512_or_si512(p_pair, _mm512_slli_epi32(narrow_lanes(p), shift_bits));
          ds_pair = _mm512_or_si512(ds_pair,
                                    _mm512_slli_epi32(_mm512_cvtepu16_epi32(ds_half), shift_bits));
        }
        _mm512_storeu_si512(&w.p_pairs[r / 2 * kKeyBlock + c], p_pair);
        _mm512_storeu_si512(&w.ds_pairs[r / 2 * kKeyBlock + c], ds_pair);
      }
    }
  }

  void run() const {
    const auto into = [&](float* buffer) {
      return [=](const auto& tile, int64_t row, int64_t column) {
        tile.store(buffer + row * kKeyBlock + column, kKeyBlock);
      };
    };
    const auto add = [&](float* buffer) {
      return [buffer, K = s.K](const auto& tile, int64_t row, int64_t column) {
        tile.add_to(buffer + row * K + column, K);
      };
    };
    const int64_t pairs = (rows + 1) / 2;
    product({as_pairs(a.q.data + first * a.q.stride), a.q.stride / 2, 1},
            {a.keys_across + first_key, s.Lp}, rows, width, s.K / 2, into(w.scores.data()));
    product({as_pairs(a.dout.data + first * a.dout.stride), a.dout.stride / 2, 1},
            {a.values_across + first_key, s.Lp}, rows, width, s.K / 2, into(w.products.data()));
    probabilities();
    product({as_pairs(w.ds_rows.data()), kKeyBlock / 2, 1},
            {a.keys_along + first_key / 2 * s.K, s.K}, rows, s.K, width / 2, add(w.dq.data()));
    product({w.ds_pairs.data(), 1, kKeyBlock}, {w.q_along.data(), s.K}, width, s.K, pairs,
            add(a.dk + first_key * s.K));
    product({w.p_pairs.data(), 1, kKeyBlock}, {w.dout_along.data(), s.K}, width, s.K, pairs,
            add(a.dv + first_key * s.K));
  }
};

}  // namespace

void attention_backward(const AttentionShape& s, const AttentionBackward& a) {
  Scratch& w = scratch();
  w.scores.at_least(kQueryBlock * kKeyBlock);
  w.products.at_least(kQueryBlock * kKeyBlock);
  w.ds_rows.at_least(kQueryBlock * kKeyBlock);
  w.p_pairs.at_least(kQueryBlock / 2 * kKeyBlock);
  w.ds_pairs.at_least(kQueryBlock / 2 * kKeyBlock);
  w.dq.at_least(kQueryBlock * s.K);
  w.q_along.at_least(kQueryBlock / 2 * s.K);
  w.dout_along.at_least(kQueryBlock / 2 * s.K);
  float delta[kQueryBlock];
  for (int64_t first = 0; first < a.queries; first += kQueryBlock) {
    const int64_t rows = std::min(kQueryBlock, a.queries - first);
    const AttentionShape block{.L = rows, .Lp = round_up(rows, 2), .K = s.K};
    pack_along(block, {a.q.data + first * a.q.stride, a.q.stride}, w.q_along.data());
    pack_along(block, {a.dout.data + first * a.dout.stride, a.dout.stride}, w.dout_along.data());
    for (int64_t r = 0; r < rows; ++r) {
      delta[r] = dot(a.dout.data + (first + r) * a.dout.stride,
                     a.out.data + (first + r) * a.out.stride, s.K);
    }
    std::fill_n(w.dq.data(), rows * s.K, 0.0f);
    const int64_t visible = round_up(seen(s, first + rows - 1), 16);
    for (int64_t key = 0; key < visible; key += kKeyBlock) {
      BlockPair{s, a, w, first, rows, key, std::min(kKeyBlock, visible - key), delta}.run();
    }
    if (a.dq_wide != nullptr) {
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(w.dq.data() + r * s.K, s.K, a.dq_wide + (first + r) * a.dq_wide_stride);
      }
      continue;
    }
    AttentionShape rounded = s;
    rounded.L = rows;
    round_rows(rounded, w.dq.data(), {a.dq.data + first * a.dq.stride, a.dq.stride});
  }
}

void round_rows(const AttentionShape& s, const float* from, RowsOut to) {
  for (int64_t t = 0; t < s.L; ++t) {
    for (int64_t i = 0; i < s.K; i += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.data + t * to.stride + i),
                          (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + t * s.K + i)));
    }
  }
}

}  // namespace triptych::cpu::avx512

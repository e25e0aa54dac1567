#pragma once

// The matrix product inside the AVX-512 kernels: a tile of up to 6 x 64 fp32 sums in registers, fed
// by pairs of bf16 numbers. Only for files compiled with the AVX-512 flags.
//
// "Pairs" is the layout that the dot-product instruction wants: 32 bits hold two numbers that are
// neighbours along the summed dim. A row-major matrix is in pairs along its last dim as it stands.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#include "kernels/cpu/bf16.h"

namespace triptych::cpu::avx512 {
namespace {

constexpr int64_t kTileRows = 6;      // 6 x 4 sums, 4 columns and a broadcast fit 32 registers
constexpr int64_t kTileColumns = 64;  // numbers, four registers

/// Where the left operand's pair (row r, pair p) is: pairs[r * row + p * step].
struct Left {
  const uint32_t* pairs;
  int64_t row, step;
};
/// Where the right operand's pairs (pair p, columns c...) are: pairs[p * step + c].
struct Right {
  const uint32_t* pairs;
  int64_t step;
};

template <int R, int C>
struct Tile {
  __m512 sums[R][C];

  void clear() {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = _mm512_setzero_ps();
    }
  }

  void multiply(Left left, Right right, int64_t pairs) {
    for (int64_t p = 0; p < pairs; ++p) {
      __m512bh columns[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        columns[c] = (__m512bh)_mm512_loadu_si512(right.pairs + p * right.step + 16 * c);
      }
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const auto pair =
            (__m512bh)_mm512_set1_epi32(static_cast<int>(left.pairs[r * left.row + p * left.step]));
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], pair, columns[c]);
      }
    }
  }

  void scale_rows(const float* factors) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        sums[r][c] = _mm512_mul_ps(sums[r][c], _mm512_set1_ps(factors[r]));
      }
    }
  }

  void add_to(float* out, int64_t stride) const {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        float* at = out + r * stride + 16 * c;
        _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sums[r][c]));
      }
    }
  }
  void store(float* out, int64_t stride) const {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) _mm512_storeu_ps(out + r * stride + 16 * c, sums[r][c]);
    }
  }
  void store(Bf16* out, int64_t stride) const {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const auto half = (__m256i)_mm512_cvtneps_pbh(sums[r][c]);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * stride + 16 * c), half);
      }
    }
  }
};

/// Aligned scratch memory that only grows. No std::vector here: its functions, compiled with these
/// flags, could become those of the whole program.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t n) { at_least(n); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* at_least(int64_t n) {
    if (n > size_) {
      std::free(data_);
      data_ = static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64));
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = n;
    }
    return data_;
  }
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

/// Calls body(std::integral_constant<int, n>) for n in 1..kMost.
template <int kMost, class Body>
inline void with_count(int64_t n, Body&& body) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_count<kMost - 1>(n, body);
  }
  body(std::integral_constant<int, kMost>{});
}

/// Calls body(tile, row, column) for the finished tiles of [rows, columns] = left x right; columns
/// a multiple of 16. Columns outside, so that the right operand's panel stays in the first-level
/// cache while all rows pass over it.
template <class Body>
inline void product(Left left, Right right, int64_t rows, int64_t columns, int64_t pairs,
                    Body&& body) {
  for (int64_t column = 0, width = 0; column < columns; column += width) {
    // Five registers' width is better cut as 3 + 2 than as 4 + 1: one column leaves the units idle.
    const int64_t left_over = (columns - column) / 16;
    const int64_t registers =
        left_over > 4 && left_over < 8 ? (left_over + 1) / 2 : std::min<int64_t>(4, left_over);
    width = 16 * registers;
    with_count<4>(registers, [&](auto C) {
      const Right panel{right.pairs + column, right.step};
      for (int64_t row = 0; row < rows; row += kTileRows) {
        with_count<6>(std::min(kTileRows, rows - row), [&](auto R) {
          Tile<R, C> tile;
          tile.clear();
          tile.multiply({left.pairs + row * left.row, left.row, left.step}, panel, pairs);
          body(tile, row, column);
        });
      }
    });
  }
}

/// exp(x) within 2 units in the last place; 0 far below, infinity far above.
inline __m512 exp(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-104.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

/// 16 bf16 numbers as floats.
inline __m512 widen(const Bf16* p) {
  const auto half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
/// To bf16, to nearest even, one number in the low half of each lane.
inline __m512i narrow_lanes(__m512 x) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
}

/// Interleaves two rows: out[c] = (upper[c], lower[c]) as a pair; n a multiple of 16. A null second
/// row counts as zeros.
inline void interleave(const Bf16* first, const Bf16* second, int64_t n, uint32_t* out) {
  for (int64_t c = 0; c < n; c += 16) {
    auto lanes = [&](const Bf16* row) {
      return row == nullptr ? _mm512_setzero_si512()
                            : _mm512_cvtepu16_epi32(
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + c)));
    };
    _mm512_storeu_si512(out + c,
                        _mm512_or_si512(lanes(first), _mm512_slli_epi32(lanes(second), 16)));
  }
}

/// Pairs along the rows' own dim, transposed: out[p * step + row] = pair p of row; rows beyond
/// `rows`, up to `padded` (a multiple of 16), are zero. D even. `stride` is in numbers.
inline void transpose_pairs(const Bf16* rows_at, int64_t rows, int64_t stride, int64_t D,
                            int64_t padded, int64_t step, uint32_t* out) {
  // Gathers of 16 rows: packing is a small share of every product that uses it.
  for (int64_t row = 0; row < padded; row += 16) {
    const int64_t n = std::clamp<int64_t>(rows - row, 0, 16);
    const auto mask = static_cast<__mmask16>((1u << n) - 1u);
    alignas(64) int64_t offsets[16] = {};
    for (int64_t i = 0; i < n; ++i) offsets[i] = (row + i) * stride * 2;
    const auto low = _mm512_load_si512(offsets), high = _mm512_load_si512(offsets + 8);
    for (int64_t p = 0; p < D / 2; ++p) {
      const auto* base = reinterpret_cast<const char*>(rows_at) + 4 * p;
      const auto zero = _mm256_setzero_si256();
      const auto a = _mm512_mask_i64gather_epi32(zero, static_cast<__mmask8>(mask), low, base, 1);
      const auto b =
          _mm512_mask_i64gather_epi32(zero, static_cast<__mmask8>(mask >> 8), high, base, 1);
      auto* at = reinterpret_cast<__m256i*>(out + p * step + row);
      _mm256_storeu_si256(at, a);
      _mm256_storeu_si256(at + 1, b);
    }
  }
}

}  // namespace
}  // namespace triptych::cpu::avx512

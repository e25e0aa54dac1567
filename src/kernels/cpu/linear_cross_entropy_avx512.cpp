#include "kernels/cpu/linear_cross_entropy_avx512.h"

#include "kernels/cpu/tile_avx512.h"

namespace triptych::cpu::avx512 {
namespace {

constexpr int64_t kBlock = 240;  // vocabulary rows between two visits of dh: 120 pairs, 40 tiles

const uint32_t* as_pairs(const Bf16* p) { return reinterpret_cast<const uint32_t*>(p); }

/// dlogits of two vocabulary rows for 16 tokens; the second row may be absent.
struct Softmax {
  const HeadGradients& g;
  int64_t Np;

  __m512 row(const Bf16* logits, int64_t v, int64_t n) const {
    const __m512 p = exp(_mm512_sub_ps(widen(logits + v * Np + n), _mm512_loadu_ps(g.lse + n)));
    const auto target = _mm512_set1_epi64(v);
    const auto low = _mm512_cmpeq_epi64_mask(_mm512_loadu_si512(g.labels + n), target);
    const auto high = _mm512_cmpeq_epi64_mask(_mm512_loadu_si512(g.labels + n + 8), target);
    const auto hit = static_cast<__mmask16>(low | (high << 8));
    return _mm512_mul_ps(_mm512_mask_sub_ps(p, hit, p, _mm512_set1_ps(1.0f)),
                         _mm512_loadu_ps(g.weights + n));
  }
};

}  // namespace

void pack_head_rows(const HeadShape& s, const Bf16* h, uint32_t* columns, uint32_t* rows) {
  transpose_pairs(h, s.N, s.D, s.D, s.Np, s.Np, columns);
  for (int64_t n = 0; n < s.Np; n += 2) {
    uint32_t* out = rows + n / 2 * s.D;
    if (n < s.N) {
      interleave(h + n * s.D, n + 1 < s.N ? h + (n + 1) * s.D : nullptr, s.D, out);
    } else {
      std::memset(out, 0, s.D * sizeof *out);
    }
  }
}

void head_logits(const HeadShape& s, const uint32_t* columns, const Bf16* weight, int64_t count,
                 Bf16* logits, float* maximum, float* sum) {
  constexpr int64_t kRows =
      48;  // their weights (100 KB at D = 1024) stay in the second-level cache
  for (int64_t first = 0; first < count; first += kRows) {
    const int64_t rows = std::min(kRows, count - first);
    product({as_pairs(weight + first * s.D), s.D / 2, 1}, {columns, s.Np}, rows, s.Np, s.D / 2,
            [&](const auto& tile, int64_t row, int64_t column) {
              tile.store(logits + (first + row) * s.Np + column, s.Np);
            });
    for (int64_t n = 0; n < s.Np; n += 16) {
      const Bf16* at = logits + first * s.Np + n;
      const __m512 before = _mm512_loadu_ps(maximum + n);
      __m512 most = before;
      for (int64_t v = 0; v < rows; ++v) most = _mm512_max_ps(most, widen(at + v * s.Np));
      __m512 total = _mm512_mul_ps(_mm512_loadu_ps(sum + n), exp(_mm512_sub_ps(before, most)));
      for (int64_t v = 0; v < rows; ++v) {
        total = _mm512_add_ps(total, exp(_mm512_sub_ps(widen(at + v * s.Np), most)));
      }
      _mm512_storeu_ps(maximum + n, most);
      _mm512_storeu_ps(sum + n, total);
    }
  }
}

void head_gradients(const HeadShape& s, const HeadGradients& g, const Bf16* weight, int64_t count,
                    const Bf16* logits) {
  const int64_t Np = s.Np, D = s.D;
  // dlogits twice: pairs along n for dW, pairs along v for dh.
  const Buffer<Bf16> by_row(kBlock * Np);
  const Buffer<uint32_t> by_pair(kBlock / 2 * Np);
  const Buffer<uint32_t> panel(kBlock / 2 * kTileColumns);
  const Softmax softmax{g, Np};
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t block = std::min(kBlock, count - first);
    for (int64_t v = 0; v < block; v += 2) {
      for (int64_t n = 0; n < Np; n += 16) {
        const auto store = [&](int64_t row) {
          const auto half = (__m256i)_mm512_cvtneps_pbh(softmax.row(logits, first + row, n));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(by_row.data() + row * Np + n), half);
          return _mm512_cvtepu16_epi32(half);
        };
        const auto even = store(v);
        const auto odd = v + 1 < block ? store(v + 1) : _mm512_setzero_si512();
        _mm512_storeu_si512(by_pair.data() + v / 2 * Np + n,
                            _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
    }
    if (g.dweight != nullptr) {
      product({as_pairs(by_row.data()), Np / 2, 1}, {g.rows, D}, block, D, Np / 2,
              [&](const auto& tile, int64_t row, int64_t column) {
                tile.store(g.dweight + (first + row) * D + column, D);
              });
    }
    if (g.dh == nullptr) continue;
    for (int64_t column = 0; column < D; column += kTileColumns) {
      const int64_t width = std::min(kTileColumns, D - column);
      for (int64_t v = 0; v < block; v += 2) {
        const Bf16* row = weight + (first + v) * D + column;
        interleave(row, v + 1 < block ? row + D : nullptr, width, panel.data() + v / 2 * width);
      }
      product({by_pair.data(), 1, Np}, {panel.data(), width}, s.N, width, (block + 1) / 2,
              [&](const auto& tile, int64_t row, int64_t inner) {
                tile.add_to(g.dh + row * D + column + inner, D);
              });
    }
  }
}

}  // namespace triptych::cpu::avx512

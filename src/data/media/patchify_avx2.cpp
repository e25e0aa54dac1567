// Inner loops of patchify with AVX2 and FMA.

#include <immintrin.h>

#include "data/media/patchify.h"

namespace triptych::detail {
namespace {

/// 16 pixels: three loads of 16 bytes, each channel gathered from all three.
void planes(const uint8_t* rgb, int64_t count, uint8_t* r, uint8_t* g, uint8_t* b) {
  constexpr char z = -1;
  // where channel c of 16 pixels lies in each of the three loads; the others shift by one byte
  const __m128i r0 = _mm_setr_epi8(0, 3, 6, 9, 12, 15, z, z, z, z, z, z, z, z, z, z);
  const __m128i r1 = _mm_setr_epi8(z, z, z, z, z, z, 2, 5, 8, 11, 14, z, z, z, z, z);
  const __m128i r2 = _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 1, 4, 7, 10, 13);
  const __m128i g0 = _mm_setr_epi8(1, 4, 7, 10, 13, z, z, z, z, z, z, z, z, z, z, z);
  const __m128i g1 = _mm_setr_epi8(z, z, z, z, z, 0, 3, 6, 9, 12, 15, z, z, z, z, z);
  const __m128i g2 = _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 2, 5, 8, 11, 14);
  const __m128i b0 = _mm_setr_epi8(2, 5, 8, 11, 14, z, z, z, z, z, z, z, z, z, z, z);
  const __m128i b1 = _mm_setr_epi8(z, z, z, z, z, 1, 4, 7, 10, 13, z, z, z, z, z, z);
  const __m128i b2 = _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, 0, 3, 6, 9, 12, 15);
  const auto gather = [](__m128i x0, __m128i x1, __m128i x2, __m128i i0, __m128i i1, __m128i i2) {
    return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(x0, i0), _mm_shuffle_epi8(x1, i1)),
                        _mm_shuffle_epi8(x2, i2));
  };
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto* p = reinterpret_cast<const __m128i*>(rgb + 3 * i);
    const __m128i x0 = _mm_loadu_si128(p), x1 = _mm_loadu_si128(p + 1), x2 = _mm_loadu_si128(p + 2);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(r + i), gather(x0, x1, x2, r0, r1, r2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(g + i), gather(x0, x1, x2, g0, g1, g2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(b + i), gather(x0, x1, x2, b0, b1, b2));
  }
  if (i < count) kPatchPortable.planes(rgb + 3 * i, count - i, r + i, g + i, b + i);
}

void levels(const uint8_t* in, int64_t stride, int64_t size, const NormalizeTable::Arithmetic& how,
            const float* table, float* out) {
  if (!how.exact || size > 16) {
    kPatchPortable.levels(in, stride, size, how, table, out);
    return;
  }
  const auto divisor = _mm256_set1_ps(how.divisor), std = _mm256_set1_ps(how.std);
  const auto per_divisor = _mm256_set1_ps(1.0f / how.divisor),
             per_std = _mm256_set1_ps(1.0f / how.std);
  const auto mean = _mm256_set1_ps(how.mean);
  const auto divide = [](__m256 a, __m256 b, __m256 reciprocal) {
    const auto q = _mm256_mul_ps(a, reciprocal);
    return _mm256_fmadd_ps(_mm256_fnmadd_ps(q, b, a), reciprocal, q);
  };
  for (int64_t y = 0; y < size; ++y, in += stride, out += size) {
    for (int64_t x = 0; x < size; x += 8) {  // rows ascend: what is written too far is overwritten
      const auto bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + x));
      const auto level = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
      const auto centered = _mm256_sub_ps(divide(level, divisor, per_divisor), mean);
      _mm256_storeu_ps(out + x, divide(centered, std, per_std));
    }
  }
}

}  // namespace

extern const PatchKernels kPatchAvx2{planes, levels};

}  // namespace triptych::detail

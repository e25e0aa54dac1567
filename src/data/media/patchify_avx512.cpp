// Inner loops of patchify with AVX-512: a row of a patch is one vector.

#include <immintrin.h>

#include "data/media/patchify.h"

namespace triptych::detail {
namespace {

void levels(const uint8_t* in, int64_t stride, int64_t size, const NormalizeTable::Arithmetic& how,
            const float* table, float* out) {
  if (!how.exact || size > 16) {
    kPatchPortable.levels(in, stride, size, how, table, out);
    return;
  }
  const auto divisor = _mm512_set1_ps(how.divisor), std = _mm512_set1_ps(how.std);
  const auto per_divisor = _mm512_set1_ps(1.0f / how.divisor),
             per_std = _mm512_set1_ps(1.0f / how.std);
  const auto mean = _mm512_set1_ps(how.mean);
  const auto divide = [](__m512 a, __m512 b, __m512 reciprocal) {
    const auto q = _mm512_mul_ps(a, reciprocal);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, b, a), reciprocal, q);
  };
  for (int64_t y = 0; y < size; ++y, in += stride, out += size) {
    const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const auto level = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
    const auto centered = _mm512_sub_ps(divide(level, divisor, per_divisor), mean);
    _mm512_storeu_ps(out, divide(centered, std, per_std));  // rows ascend: overlap is overwritten
  }
}

void planes(const uint8_t* rgb, int64_t count, uint8_t* r, uint8_t* g, uint8_t* b) {
  kPatchAvx2.planes(rgb, count, r, g, b);
}

}  // namespace

extern const PatchKernels kPatchAvx512{planes, levels};

}  // namespace triptych::detail

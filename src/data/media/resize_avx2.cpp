// The resize passes with AVX2. Pixels are widened to 16 bits, two taps are multiplied and added by
// one instruction; 22-bit weights are cut into two halves that fit it (see ResizeAxis).

#include <immintrin.h>

#include <algorithm>

#include "data/media/resize_plan.h"

namespace triptych::detail {
namespace {

constexpr int kLow = ResizeAxis::kLowBits;

__m256i broadcast(int32_t word) { return _mm256_set1_epi32(word); }

struct Sums {
  __m256i high, low;

  void start(int bits) {
    high = _mm256_setzero_si256();
    low = broadcast(1 << (bits - 1));
  }
  template <bool kSplit>
  void add(__m256i pixels, __m256i weight_high, __m256i weight_low) {
    if constexpr (kSplit) {
      high = _mm256_add_epi32(high, _mm256_madd_epi16(pixels, weight_high));
      low = _mm256_add_epi32(low, _mm256_madd_epi16(pixels, weight_low));
    } else {
      low = _mm256_add_epi32(low, _mm256_madd_epi16(pixels, weight_high));
    }
  }
  template <bool kSplit>
  __m256i total(int bits) const {
    const auto sum = kSplit ? _mm256_add_epi32(_mm256_slli_epi32(high, kLow), low) : low;
    return _mm256_sra_epi32(sum, _mm_cvtsi32_si128(bits));
  }
};

/// 16 bytes of each of two rows, one row a half.
__m256i load_two(const uint8_t* a, const uint8_t* b) {
  return _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

/// Output pixel x of two RGB rows: [r g b -] per half, as 32-bit sums shifted down.
template <bool kSplit>
__m256i rgb_pixel(const ResizeAxis& axis, int64_t x, const uint8_t* a, const uint8_t* b) {
  constexpr char z = -1;
  const auto pair0 =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z));
  const auto pair1 =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z));
  const int pairs = axis.taps / 2;
  const int32_t* high = &axis.high[x * pairs];
  const int32_t* low = kSplit ? &axis.low[x * pairs] : high;
  const int64_t at = axis.first[x] * int64_t{3};
  a += at, b += at;

  Sums sums;
  sums.start(axis.bits);
  int p = 0;
  for (; p + 1 < pairs; p += 2, a += 12, b += 12) {
    const auto pixels = load_two(a, b);
    sums.add<kSplit>(_mm256_shuffle_epi8(pixels, pair0), broadcast(high[p]), broadcast(low[p]));
    sums.add<kSplit>(_mm256_shuffle_epi8(pixels, pair1), broadcast(high[p + 1]),
                     broadcast(low[p + 1]));
  }
  if (p < pairs) {
    sums.add<kSplit>(_mm256_shuffle_epi8(load_two(a, b), pair0), broadcast(high[p]),
                     broadcast(low[p]));
  }
  return sums.total<kSplit>(axis.bits);
}

/// Outputs [0, end) of two RGB rows, four at a time; returns where it stopped.
template <bool kSplit>
int64_t rgb_rows(const ResizeAxis& axis, const uint8_t* a, const uint8_t* b, int64_t end,
                 uint8_t* out_a, uint8_t* out_b) {
  constexpr char z = -1;
  const auto squeeze = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, z, z, z, z));
  int64_t x = 0;
  for (; x + 4 <= end; x += 4) {
    const auto p01 =
        _mm256_packs_epi32(rgb_pixel<kSplit>(axis, x, a, b), rgb_pixel<kSplit>(axis, x + 1, a, b));
    const auto p23 = _mm256_packs_epi32(rgb_pixel<kSplit>(axis, x + 2, a, b),
                                        rgb_pixel<kSplit>(axis, x + 3, a, b));
    const auto bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(p01, p23), squeeze);
    // 16 bytes are written for 12; the next store, or the plain code at the end, covers the rest
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out_a + 3 * x), _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out_b + 3 * x), _mm256_extracti128_si256(bytes, 1));
  }
  return x;
}

/// How many outputs may be made with loads of 16 bytes and stores of 16 bytes, when `readable`
/// bytes follow the start of the row. The last two pixels are left over for the overlap of the
/// stores.
int64_t safe_outputs(const ResizeAxis& axis, int64_t readable) {
  const auto reach = [&](int64_t x) { return axis.first[x] * int64_t{3} + axis.taps * 3 + 16; };
  int64_t end = std::max<int64_t>(axis.out - 2, 0);
  while (end > 0 && reach(end - 1) > readable) --end;
  return end;
}

template <bool kSplit>
void horizontal_rgb(const ResizeAxis& axis, const uint8_t* in, int64_t rows, uint8_t* out) {
  const int64_t in_bytes = axis.in * 3, out_bytes = axis.out * 3;
  int64_t y = 0;
  for (; y + 2 <= rows; y += 2) {
    const uint8_t *a = in + y * in_bytes, *b = a + in_bytes;
    uint8_t *out_a = out + y * out_bytes, *out_b = out_a + out_bytes;
    const int64_t end = safe_outputs(axis, (rows - y - 1) * in_bytes);
    const int64_t x = rgb_rows<kSplit>(axis, a, b, end, out_a, out_b);
    horizontal_portable(axis, 3, a, x, axis.out, out_a);
    horizontal_portable(axis, 3, b, x, axis.out, out_b);
  }
  if (y < rows) {
    horizontal_portable(axis, 3, in + y * in_bytes, 0, axis.out, out + y * out_bytes);
  }
}

void horizontal(const ResizeAxis& axis, int channels, const uint8_t* in, int64_t rows,
                uint8_t* out) {
  if (channels == 3) {
    axis.low.empty() ? horizontal_rgb<false>(axis, in, rows, out)
                     : horizontal_rgb<true>(axis, in, rows, out);
    return;
  }
  for (int64_t y = 0; y < rows; ++y) {
    horizontal_portable(axis, channels, in + y * axis.in * channels, 0, axis.out,
                        out + y * axis.out * channels);
  }
}

/// 32 columns of one output row. `in` points at the first column of the first tap's row.
template <bool kSplit>
void vertical_block(const ResizeAxis& axis, int64_t y, int64_t rows_left, const uint8_t* in,
                    int64_t row_bytes, uint8_t* out) {
  const int pairs = axis.taps / 2;
  const int32_t* high = &axis.high[y * pairs];
  const int32_t* low = kSplit ? &axis.low[y * pairs] : high;
  const auto zero = _mm256_setzero_si256();
  Sums sums[4];
  for (auto& s : sums) s.start(axis.bits);
  for (int p = 0; p < pairs && 2 * p < rows_left; ++p, in += 2 * row_bytes) {
    const auto a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
    const uint8_t* below = 2 * p + 1 < rows_left ? in + row_bytes : in;  // its weight is 0 then
    const auto b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(below));
    const auto left = _mm256_unpacklo_epi8(a, b), right = _mm256_unpackhi_epi8(a, b);
    const auto h = broadcast(high[p]), l = broadcast(low[p]);
    sums[0].add<kSplit>(_mm256_unpacklo_epi8(left, zero), h, l);
    sums[1].add<kSplit>(_mm256_unpackhi_epi8(left, zero), h, l);
    sums[2].add<kSplit>(_mm256_unpacklo_epi8(right, zero), h, l);
    sums[3].add<kSplit>(_mm256_unpackhi_epi8(right, zero), h, l);
  }
  const auto left =
      _mm256_packs_epi32(sums[0].total<kSplit>(axis.bits), sums[1].total<kSplit>(axis.bits));
  const auto right =
      _mm256_packs_epi32(sums[2].total<kSplit>(axis.bits), sums[3].total<kSplit>(axis.bits));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(left, right));
}

template <bool kSplit>
void vertical_row(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                  uint8_t* out) {
  constexpr int64_t kWidth = 32;
  if (row_bytes < kWidth) {
    vertical_portable(axis, y, in, row_bytes, 0, row_bytes, out);
    return;
  }
  const int64_t first = axis.first[y];
  in += first * row_bytes;
  for (int64_t x = 0; x < row_bytes; x += kWidth) {
    const int64_t at = std::min(x, row_bytes - kWidth);  // the last block overlaps the one before
    vertical_block<kSplit>(axis, y, axis.in - first, in + at, row_bytes, out + at);
  }
}

void vertical(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
              uint8_t* out) {
  axis.low.empty() ? vertical_row<false>(axis, y, in, row_bytes, out)
                   : vertical_row<true>(axis, y, in, row_bytes, out);
}

}  // namespace

extern const ResizeKernels kResizeAvx2{horizontal, vertical};

}  // namespace triptych::detail

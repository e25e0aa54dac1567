// The resize passes with AVX-512 (F, BW, VL): as with AVX2, on four rows and on 64 columns at once.

#include <immintrin.h>

#include <algorithm>

#include "data/media/resize_plan.h"

namespace triptych::detail {
namespace {

constexpr int kLow = ResizeAxis::kLowBits;

__m512i broadcast(int32_t word) { return _mm512_set1_epi32(word); }

struct Sums {
  __m512i high, low;

  void start(int bits) {
    high = _mm512_setzero_si512();
    low = broadcast(1 << (bits - 1));
  }
  template <bool kSplit>
  void add(__m512i pixels, __m512i weight_high, __m512i weight_low) {
    if constexpr (kSplit) {
      high = _mm512_add_epi32(high, _mm512_madd_epi16(pixels, weight_high));
      low = _mm512_add_epi32(low, _mm512_madd_epi16(pixels, weight_low));
    } else {
      low = _mm512_add_epi32(low, _mm512_madd_epi16(pixels, weight_high));
    }
  }
  template <bool kSplit>
  __m512i total(int bits) const {
    const auto sum = kSplit ? _mm512_add_epi32(_mm512_slli_epi32(high, kLow), low) : low;
    return _mm512_sra_epi32(sum, _mm_cvtsi32_si128(bits));
  }
};

__m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

/// 16 bytes of each of four rows, one row a quarter.
__m512i load_four(const uint8_t* p, int64_t stride) {
  const auto ab = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p)), load16(p + stride), 1);
  const auto cd = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p + 2 * stride)),
                                          load16(p + 3 * stride), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(ab), cd, 1);
}

/// Output pixel x of four RGB rows: [r g b -] per quarter, as 32-bit sums shifted down.
template <bool kSplit>
__m512i rgb_pixel(const ResizeAxis& axis, int64_t x, const uint8_t* in, int64_t stride) {
  constexpr char z = -1;
  const auto pair0 =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z));
  const auto pair1 =
      _mm512_broadcast_i32x4(_mm_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z));
  const int pairs = axis.taps / 2;
  const int32_t* high = &axis.high[x * pairs];
  const int32_t* low = kSplit ? &axis.low[x * pairs] : high;
  in += axis.first[x] * int64_t{3};

  Sums sums;
  sums.start(axis.bits);
  int p = 0;
  for (; p + 1 < pairs; p += 2, in += 12) {
    const auto pixels = load_four(in, stride);
    sums.add<kSplit>(_mm512_shuffle_epi8(pixels, pair0), broadcast(high[p]), broadcast(low[p]));
    sums.add<kSplit>(_mm512_shuffle_epi8(pixels, pair1), broadcast(high[p + 1]),
                     broadcast(low[p + 1]));
  }
  if (p < pairs) {
    sums.add<kSplit>(_mm512_shuffle_epi8(load_four(in, stride), pair0), broadcast(high[p]),
                     broadcast(low[p]));
  }
  return sums.total<kSplit>(axis.bits);
}

/// Outputs [0, end) of four RGB rows, four at a time; returns where it stopped.
template <bool kSplit>
int64_t rgb_rows(const ResizeAxis& axis, const uint8_t* in, int64_t end, uint8_t* out) {
  constexpr char z = -1;
  const auto squeeze =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, z, z, z, z));
  const int64_t in_bytes = axis.in * 3, out_bytes = axis.out * 3;
  int64_t x = 0;
  for (; x + 4 <= end; x += 4) {
    const auto p01 = _mm512_packs_epi32(rgb_pixel<kSplit>(axis, x, in, in_bytes),
                                        rgb_pixel<kSplit>(axis, x + 1, in, in_bytes));
    const auto p23 = _mm512_packs_epi32(rgb_pixel<kSplit>(axis, x + 2, in, in_bytes),
                                        rgb_pixel<kSplit>(axis, x + 3, in, in_bytes));
    const auto bytes = _mm512_shuffle_epi8(_mm512_packus_epi16(p01, p23), squeeze);
    // 16 bytes are written for 12; the next store, or the plain code at the end, covers the rest
    const auto store = [&](int64_t row, __m128i value) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + row * out_bytes + 3 * x), value);
    };
    store(0, _mm512_castsi512_si128(bytes));
    store(1, _mm512_extracti32x4_epi32(bytes, 1));
    store(2, _mm512_extracti32x4_epi32(bytes, 2));
    store(3, _mm512_extracti32x4_epi32(bytes, 3));
  }
  return x;
}

/// How many outputs may be made with loads and stores of 16 bytes, when `readable` bytes follow the
/// start of the last row. The last two pixels are left over for the overlap of the stores.
int64_t safe_outputs(const ResizeAxis& axis, int64_t readable) {
  const auto reach = [&](int64_t x) { return axis.first[x] * int64_t{3} + axis.taps * 3 + 16; };
  int64_t end = std::max<int64_t>(axis.out - 2, 0);
  while (end > 0 && reach(end - 1) > readable) --end;
  return end;
}

template <bool kSplit>
void horizontal_rgb(const ResizeAxis& axis, const uint8_t* in, int64_t rows, uint8_t* out) {
  constexpr int64_t kRows = 4;
  const int64_t in_bytes = axis.in * 3, out_bytes = axis.out * 3;
  int64_t y = 0;
  for (; y + kRows <= rows; y += kRows) {
    const int64_t end = safe_outputs(axis, (rows - y - kRows + 1) * in_bytes);
    const int64_t x = rgb_rows<kSplit>(axis, in + y * in_bytes, end, out + y * out_bytes);
    for (int64_t r = y; r < y + kRows; ++r) {
      horizontal_portable(axis, 3, in + r * in_bytes, x, axis.out, out + r * out_bytes);
    }
  }
  // up to three rows are left: AVX2 takes pairs of them
  if (y < rows) kResizeAvx2.horizontal(axis, 3, in + y * in_bytes, rows - y, out + y * out_bytes);
}

void horizontal(const ResizeAxis& axis, int channels, const uint8_t* in, int64_t rows,
                uint8_t* out) {
  if (channels != 3) {
    kResizeAvx2.horizontal(axis, channels, in, rows, out);
  } else if (axis.low.empty()) {
    horizontal_rgb<false>(axis, in, rows, out);
  } else {
    horizontal_rgb<true>(axis, in, rows, out);
  }
}

/// 64 columns of one output row. `in` points at the first column of the first tap's row.
template <bool kSplit>
void vertical_block(const ResizeAxis& axis, int64_t y, int64_t rows_left, const uint8_t* in,
                    int64_t row_bytes, uint8_t* out) {
  const int pairs = axis.taps / 2;
  const int32_t* high = &axis.high[y * pairs];
  const int32_t* low = kSplit ? &axis.low[y * pairs] : high;
  const auto zero = _mm512_setzero_si512();
  Sums sums[4];
  for (auto& s : sums) s.start(axis.bits);
  for (int p = 0; p < pairs && 2 * p < rows_left; ++p, in += 2 * row_bytes) {
    const auto a = _mm512_loadu_si512(in);
    // below the last row the weight is 0, so that any readable bytes do
    const auto b = _mm512_loadu_si512(2 * p + 1 < rows_left ? in + row_bytes : in);
    const auto left = _mm512_unpacklo_epi8(a, b), right = _mm512_unpackhi_epi8(a, b);
    const auto h = broadcast(high[p]), l = broadcast(low[p]);
    sums[0].add<kSplit>(_mm512_unpacklo_epi8(left, zero), h, l);
    sums[1].add<kSplit>(_mm512_unpackhi_epi8(left, zero), h, l);
    sums[2].add<kSplit>(_mm512_unpacklo_epi8(right, zero), h, l);
    sums[3].add<kSplit>(_mm512_unpackhi_epi8(right, zero), h, l);
  }
  const auto left =
      _mm512_packs_epi32(sums[0].total<kSplit>(axis.bits), sums[1].total<kSplit>(axis.bits));
  const auto right =
      _mm512_packs_epi32(sums[2].total<kSplit>(axis.bits), sums[3].total<kSplit>(axis.bits));
  _mm512_storeu_si512(out, _mm512_packus_epi16(left, right));
}

template <bool kSplit>
void vertical_row(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                  uint8_t* out) {
  constexpr int64_t kWidth = 64;
  const int64_t first = axis.first[y];
  for (int64_t x = 0; x < row_bytes; x += kWidth) {
    const int64_t at = std::min(x, row_bytes - kWidth);  // the last block overlaps the one before
    vertical_block<kSplit>(axis, y, axis.in - first, in + first * row_bytes + at, row_bytes,
                           out + at);
  }
}

void vertical(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
              uint8_t* out) {
  if (row_bytes < 64) {
    kResizeAvx2.vertical(axis, y, in, row_bytes, out);
  } else if (axis.low.empty()) {
    vertical_row<false>(axis, y, in, row_bytes, out);
  } else {
    vertical_row<true>(axis, y, in, row_bytes, out);
  }
}

}  // namespace

extern const ResizeKernels kResizeAvx512{horizontal, vertical};

}  // namespace triptych::detail

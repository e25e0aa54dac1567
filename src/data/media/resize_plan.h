#pragma once

// Weights and kernels behind resize.h, for callers that produce the result band by band. Private to
// this folder.

#include <cstdint>
#include <vector>

#include "data/media/resize.h"

namespace triptych {

/// How one dim is resampled: output i is sum_j weight[i][j] * input[first[i] + j], in fixed point.
struct ResizeAxis {
  int64_t in = 0, out = 0;
  int taps = 0;  ///< most that any output has, rounded up to even; shorter ones end in 0
  int bits = 0;  ///< fraction bits of a weight
  std::vector<int32_t> first;    ///< [out]
  std::vector<int32_t> weights;  ///< [out, taps]

  /// The same weights for multiply-add instructions on pairs of 16-bit numbers: two neighbouring
  /// taps in one word. A weight of more than 16 bits is split, weight = (high << kLowBits) + low;
  /// `low` is empty where the weights fit as they are.
  static constexpr int kLowBits = 11;
  std::vector<int32_t> high, low;  ///< [out, taps / 2]

  bool identity() const { return in == out; }
};

ResizeAxis make_resize_axis(int64_t in, int64_t out, ResizeFilter filter,
                            WeightPrecision precision);

/// One instruction set's code for the two passes.
struct ResizeKernels {
  /// `rows` rows of `channels` interleaved samples from `in` to `out`, both densely packed.
  void (*horizontal)(const ResizeAxis& axis, int channels, const uint8_t* in, int64_t rows,
                     uint8_t* out);
  /// One output row of `row_bytes` bytes; `in` points at input row 0.
  void (*vertical)(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                   uint8_t* out);
};
const ResizeKernels& resize_kernels(SimdLevel level);

namespace detail {
/// Outputs [begin, end) of one row, plainly; the other kernels finish their rows with it.
void horizontal_portable(const ResizeAxis& axis, int channels, const uint8_t* in, int64_t begin,
                         int64_t end, uint8_t* out);
/// Bytes [begin, end) of output row y.
void vertical_portable(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                       int64_t begin, int64_t end, uint8_t* out);
extern const ResizeKernels kResizeAvx2, kResizeAvx512;  // defined on x86-64 only
}  // namespace detail

/// A resize of one size pair: weights made once, usable for many frames and from many threads.
class ResizePlan {
 public:
  ResizePlan(ImageSize from, ImageSize to, int channels, const ResizeOptions& options);

  ImageSize from() const { return from_; }
  ImageSize to() const { return to_; }

  /// Pillow 12 shrinks very tall pictures (height > 100 width) vertically first.
  bool vertical_first() const { return vertical_first_; }

  /// The first pass, all rows: [from.height, to.width]. Not for vertical_first().
  void horizontal(const uint8_t* pixels, uint8_t* out) const;
  /// The second pass, output rows [begin, end), from what the first one made.
  void vertical(const uint8_t* rows, int64_t begin, int64_t end, uint8_t* out) const;

  /// Both, in whatever order is right.
  void run(const uint8_t* pixels, uint8_t* out) const;

 private:
  ImageSize from_, to_;
  int channels_;
  bool vertical_first_;
  ResizeAxis x_, y_;
  const ResizeKernels* kernels_;
};

}  // namespace triptych

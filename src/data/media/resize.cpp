#include "data/media/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "data/media/resize_plan.h"

namespace triptych {
namespace {

constexpr int kPillowBits = 22;

/// Keys' cubic with a = -0.5, in the reference's order of operations.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double triangle(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

int32_t to_fixed(double weight, int bits) {  // halves away from zero
  const double scaled = weight * static_cast<double>(1 << bits);
  return static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

/// The most fraction bits with which the largest weight still fits 16 bits.
int torch_bits(const std::vector<double>& weights) {
  const double largest = *std::max_element(weights.begin(), weights.end());
  int bits = 0;
  while (bits < kPillowBits &&
         static_cast<int64_t>(0.5 + largest * static_cast<double>(1 << (bits + 1))) < (1 << 15)) {
    ++bits;
  }
  return bits;
}

int32_t pair(int32_t first, int32_t second) {
  return static_cast<int32_t>((static_cast<uint32_t>(first) & 0xffff) |
                              (static_cast<uint32_t>(second) << 16));
}

void pack_pairs(ResizeAxis& axis, bool split) {
  constexpr int kLow = ResizeAxis::kLowBits;
  const size_t pairs = axis.weights.size() / 2;
  axis.high.resize(pairs);
  if (split) axis.low.resize(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    const int32_t a = axis.weights[2 * i], b = axis.weights[2 * i + 1];
    axis.high[i] = split ? pair(a >> kLow, b >> kLow) : pair(a, b);
    if (split) axis.low[i] = pair(a & ((1 << kLow) - 1), b & ((1 << kLow) - 1));
  }
}

uint8_t to_byte(int32_t sum, int bits) {
  return static_cast<uint8_t>(std::clamp(sum >> bits, 0, 255));
}

}  // namespace

ResizeAxis make_resize_axis(int64_t in, int64_t out, ResizeFilter filter,
                            WeightPrecision precision) {
  const auto kernel = filter == ResizeFilter::kBicubic ? cubic : triangle;
  const double radius = filter == ResizeFilter::kBicubic ? 2.0 : 1.0;
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);  // the antialias: a wider kernel when shrinking
  const double support = radius * stretch, inverse = 1.0 / stretch;

  ResizeAxis axis{.in = in, .out = out};
  axis.taps = static_cast<int>(std::ceil(support)) * 2 + 1;
  axis.taps += axis.taps % 2;
  axis.first.resize(out);
  std::vector<double> weights(out * axis.taps, 0.0);
  for (int64_t o = 0; o < out; ++o) {
    const double center = (static_cast<double>(o) + 0.5) * scale;
    const auto begin = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const auto end = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in);
    double* w = &weights[o * axis.taps];
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      w[i - begin] = kernel((static_cast<double>(i) - center + 0.5) * inverse);
      sum += w[i - begin];
    }
    for (int64_t i = begin; i < end && sum != 0; ++i) w[i - begin] /= sum;
    axis.first[o] = static_cast<int32_t>(begin);
  }

  const bool pillow = precision == WeightPrecision::kPillow;
  axis.bits = pillow ? kPillowBits : torch_bits(weights);
  axis.weights.resize(weights.size());
  std::transform(weights.begin(), weights.end(), axis.weights.begin(),
                 [&](double w) { return to_fixed(w, axis.bits); });
  pack_pairs(axis, pillow);
  return axis;
}

namespace detail {

void horizontal_portable(const ResizeAxis& axis, int channels, const uint8_t* in, int64_t begin,
                         int64_t end, uint8_t* out) {
  for (int64_t x = begin; x < end; ++x) {
    const int32_t* w = &axis.weights[x * axis.taps];
    const int64_t first = axis.first[x];
    const int64_t taps = std::min<int64_t>(axis.taps, axis.in - first);
    for (int c = 0; c < channels; ++c) {
      const uint8_t* p = in + first * channels + c;
      int32_t sum = 1 << (axis.bits - 1);
      for (int64_t t = 0; t < taps; ++t) sum += w[t] * p[t * channels];
      out[x * channels + c] = to_byte(sum, axis.bits);
    }
  }
}

void vertical_portable(const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                       int64_t begin, int64_t end, uint8_t* out) {
  const int32_t* w = &axis.weights[y * axis.taps];
  const int64_t first = axis.first[y];
  const int64_t taps = std::min<int64_t>(axis.taps, axis.in - first);
  constexpr int64_t kBlock = 256;  // sums stay in the nearest cache, the inner loop is a plain row
  int32_t sums[kBlock];
  for (int64_t x = begin; x < end; x += kBlock) {
    const int64_t count = std::min(kBlock, end - x);
    std::fill_n(sums, count, 1 << (axis.bits - 1));
    for (int64_t t = 0; t < taps; ++t) {
      const uint8_t* row = in + (first + t) * row_bytes + x;
      for (int64_t i = 0; i < count; ++i) sums[i] += w[t] * row[i];
    }
    for (int64_t i = 0; i < count; ++i) out[x + i] = to_byte(sums[i], axis.bits);
  }
}

namespace {
constexpr ResizeKernels kResizePortable{
    .horizontal =
        [](const ResizeAxis& axis, int channels, const uint8_t* in, int64_t rows, uint8_t* out) {
          for (int64_t y = 0; y < rows; ++y) {
            horizontal_portable(axis, channels, in + y * axis.in * channels, 0, axis.out,
                                out + y * axis.out * channels);
          }
        },
    .vertical = [](const ResizeAxis& axis, int64_t y, const uint8_t* in, int64_t row_bytes,
                   uint8_t* out) { vertical_portable(axis, y, in, row_bytes, 0, row_bytes, out); }};
}  // namespace
}  // namespace detail

SimdLevel simd_level() {
#if defined(__x86_64__)
  static const SimdLevel level = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      return SimdLevel::kAvx512;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? SimdLevel::kAvx2
                                                                           : SimdLevel::kPortable;
  }();
  return level;
#else
  return SimdLevel::kPortable;
#endif
}

const ResizeKernels& resize_kernels(SimdLevel level) {
#if defined(__x86_64__)
  if (level == SimdLevel::kAvx512) return detail::kResizeAvx512;
  if (level == SimdLevel::kAvx2) return detail::kResizeAvx2;
#endif
  (void)level;
  return detail::kResizePortable;
}

ResizePlan::ResizePlan(ImageSize from, ImageSize to, int channels, const ResizeOptions& options)
    : from_(from),
      to_(to),
      channels_(channels),
      vertical_first_(options.precision == WeightPrecision::kPillow &&
                      from.height > from.width * 100 && to.height < from.height),
      kernels_(&resize_kernels(options.simd)) {
  require(from.width > 0 && from.height > 0 && to.width > 0 && to.height > 0, "resize: from ",
          from.width, " x ", from.height, " to ", to.width, " x ", to.height,
          "; every side must be at least 1");
  require(channels >= 1 && channels <= 4, "resize: ", channels, " channels; 1 to 4 are possible");
  x_ = make_resize_axis(from.width, to.width, options.filter, options.precision);
  y_ = make_resize_axis(from.height, to.height, options.filter, options.precision);
}

void ResizePlan::horizontal(const uint8_t* pixels, uint8_t* out) const {
  if (x_.identity()) {
    std::memcpy(out, pixels, from_.pixels() * channels_);
  } else {
    kernels_->horizontal(x_, channels_, pixels, from_.height, out);
  }
}

void ResizePlan::vertical(const uint8_t* rows, int64_t begin, int64_t end, uint8_t* out) const {
  const int64_t row_bytes = to_.width * channels_;
  if (y_.identity()) {
    std::memcpy(out, rows + begin * row_bytes, (end - begin) * row_bytes);
    return;
  }
  for (int64_t y = begin; y < end; ++y, out += row_bytes) {
    kernels_->vertical(y_, y, rows, row_bytes, out);
  }
}

void ResizePlan::run(const uint8_t* pixels, uint8_t* out) const {
  const ImageSize middle =
      vertical_first_ ? ImageSize{from_.width, to_.height} : ImageSize{to_.width, from_.height};
  const auto between = std::make_unique_for_overwrite<uint8_t[]>(middle.pixels() * channels_);
  if (!vertical_first_) {
    horizontal(pixels, between.get());
    vertical(between.get(), 0, to_.height, out);
    return;
  }
  const int64_t row_bytes = from_.width * channels_;
  for (int64_t y = 0; y < to_.height; ++y) {
    kernels_->vertical(y_, y, pixels, row_bytes, between.get() + y * row_bytes);
  }
  if (x_.identity()) {
    std::memcpy(out, between.get(), middle.pixels() * channels_);
  } else {
    kernels_->horizontal(x_, channels_, between.get(), to_.height, out);
  }
}

std::vector<uint8_t> resize(std::span<const uint8_t> pixels, ImageSize from, ImageSize to,
                            int channels, const ResizeOptions& options) {
  const ResizePlan plan(from, to, channels, options);
  require(static_cast<int64_t>(pixels.size()) == from.pixels() * channels,
          "resize: ", pixels.size(), " bytes for ", from.width, " x ", from.height, " pixels of ",
          channels, " channels");
  std::vector<uint8_t> out(to.pixels() * channels);
  plan.run(pixels.data(), out.data());
  return out;
}

RgbImage resize(const RgbImage& image, ImageSize to, const ResizeOptions& options) {
  return {.size = to,
          .pixels = resize(image.pixels, image.size, to, 3, options),
          .warning = image.warning};
}

std::vector<uint8_t> resize_nearest(std::span<const uint8_t> pixels, ImageSize from, ImageSize to,
                                    int channels) {
  require(from.pixels() > 0 && to.pixels() > 0 &&
              static_cast<int64_t>(pixels.size()) == from.pixels() * channels,
          "resize_nearest: ", pixels.size(), " bytes from ", from.width, " x ", from.height, " to ",
          to.width, " x ", to.height);
  const auto picks = [](int64_t in, int64_t out) {
    const double step = static_cast<double>(in) / static_cast<double>(out);
    std::vector<int64_t> index(out);
    double at = step * 0.5;  // summed up, as the reference does; a product would round differently
    for (auto& i : index) i = std::min<int64_t>(static_cast<int64_t>(at), in - 1), at += step;
    return index;
  };
  const auto columns = picks(from.width, to.width), rows = picks(from.height, to.height);
  std::vector<uint8_t> out(to.pixels() * channels);
  uint8_t* o = out.data();
  for (const int64_t y : rows) {
    for (const int64_t x : columns) {
      o = std::copy_n(&pixels[(y * from.width + x) * channels], channels, o);
    }
  }
  return out;
}

}  // namespace triptych

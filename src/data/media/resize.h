#pragma once

// Resizing of 8-bit pictures, byte for byte as the two references do it. No libtorch.

#include <cstdint>
#include <span>
#include <vector>

#include "data/media/image.h"

namespace triptych {

enum class ResizeFilter { kBilinear, kBicubic };

/// The references differ only in how finely a weight is stored.
enum class WeightPrecision {
  kPillow,  ///< 22 fraction bits: Pillow 9.5 to 12.3, the "slow" processors
  kTorch,   ///< int16: torch's antialiased uint8 interpolation, the "fast" processors
};

/// Instruction sets with a kernel of their own; every one gives the same bytes.
enum class SimdLevel { kPortable, kAvx2, kAvx512 };
/// The best that this machine has.
SimdLevel simd_level();

struct ResizeOptions {
  ResizeFilter filter = ResizeFilter::kBicubic;
  WeightPrecision precision = WeightPrecision::kPillow;
  SimdLevel simd = simd_level();
};

/// Antialiased separable resize: the horizontal pass first, its result rounded to bytes, then the
/// vertical one; a pass that would not change the size is left out. Bicubic has a = -0.5.
///
/// @param pixels    [from.height, from.width, channels], channels 1 to 4, treated alike
/// @return          [to.height, to.width, channels]
/// @throws Error    on empty sizes, or when `pixels` has another length.
/// Source: Pillow's resampling; the weights' precision of kTorch as ATen's upsample_*_aa on uint8.
std::vector<uint8_t> resize(std::span<const uint8_t> pixels, ImageSize from, ImageSize to,
                            int channels, const ResizeOptions& options = {});

/// The same for RGB.
RgbImage resize(const RgbImage& image, ImageSize to, const ResizeOptions& options = {});

/// Picks source pixels as Pillow's NEAREST does, the rounding of its running sum included.
std::vector<uint8_t> resize_nearest(std::span<const uint8_t> pixels, ImageSize from, ImageSize to,
                                    int channels);

}  // namespace triptych

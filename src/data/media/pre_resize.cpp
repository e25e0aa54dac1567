#include "data/media/pre_resize.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace triptych {
namespace {

constexpr int64_t kLeastSide = 28;
constexpr double kMostAspect = 200;
constexpr int64_t kAspectInstead = 180;

ImageSize scaled_to_area(ImageSize size, int64_t area) {
  const double factor = std::sqrt(static_cast<double>(area) / static_cast<double>(size.pixels()));
  return {static_cast<int64_t>(static_cast<double>(size.width) * factor),
          static_cast<int64_t>(static_cast<double>(size.height) * factor)};
}

/// Colours times alpha, or back: Pillow resizes pictures with alpha in between.
void premultiply(Picture& picture) {
  const int n = picture.channels();
  for (size_t i = 0; i < picture.samples.size(); i += n) {
    const int alpha = picture.samples[i + n - 1];
    for (int c = 0; c + 1 < n; ++c) {
      const int t = picture.samples[i + c] * alpha + 128;
      picture.samples[i + c] = static_cast<uint8_t>(((t >> 8) + t) >> 8);
    }
  }
}

void unpremultiply(Picture& picture) {
  const int n = picture.channels();
  for (size_t i = 0; i < picture.samples.size(); i += n) {
    const int alpha = picture.samples[i + n - 1];
    if (alpha == 0 || alpha == 255) continue;
    for (int c = 0; c + 1 < n; ++c) {
      picture.samples[i + c] =
          static_cast<uint8_t>(std::min(255 * picture.samples[i + c] / alpha, 255));
    }
  }
}

void resize_in_mode(Picture& picture, const PreResizeStep& step, SimdLevel simd) {
  if (step.to == picture.size) return;
  const int channels = picture.channels();
  const bool alpha = picture.mode == PictureMode::kRgba || picture.mode == PictureMode::kGreyAlpha;
  if (step.nearest || picture.nearest_only) {
    picture.samples = resize_nearest(picture.samples, picture.size, step.to, channels);
  } else {
    if (alpha) premultiply(picture);
    picture.samples = resize(picture.samples, picture.size, step.to, channels, {.simd = simd});
  }
  picture.size = step.to;
  if (alpha && !step.nearest) unpremultiply(picture);
}

}  // namespace

std::vector<PreResizeStep> pre_resize_steps(ImageSize size, PreResize rule,
                                            const PixelLimits& limits, std::string_view origin) {
  std::vector<PreResizeStep> steps;
  if (rule == PreResize::kNone) return steps;
  const auto step = [&](ImageSize to, bool own_mode) {
    require<DataError>(to.width > 0 && to.height > 0, origin, ": resizing ", size.width, " x ",
                       size.height, " pixels to an area within ", limits.min_pixels, " to ",
                       limits.max_pixels, " leaves ", to.width, " x ", to.height);
    steps.push_back({to, own_mode && rule == PreResize::kMindSpeed, own_mode});
    size = to;
  };
  if (size.pixels() > limits.max_pixels) step(scaled_to_area(size, limits.max_pixels), true);
  if (size.pixels() < limits.min_pixels) step(scaled_to_area(size, limits.min_pixels), true);
  if (std::min(size.width, size.height) < kLeastSide) {
    step({std::max(size.width, kLeastSide), std::max(size.height, kLeastSide)}, false);
  }
  const auto aspect = [](int64_t a, int64_t b) {
    return static_cast<double>(a) / static_cast<double>(b);
  };
  if (aspect(size.width, size.height) > kMostAspect) {
    step({size.height * kAspectInstead, size.height}, false);
  }
  if (aspect(size.height, size.width) > kMostAspect) {
    step({size.width, size.width * kAspectInstead}, false);
  }
  return steps;
}

RgbImage pre_resize(Picture picture, const std::vector<PreResizeStep>& steps, AlphaRule alpha,
                    SimdLevel simd) {
  auto step = steps.begin();
  for (; step != steps.end() && step->own_mode; ++step) resize_in_mode(picture, *step, simd);
  auto image = to_rgb(std::move(picture), alpha);
  for (; step != steps.end(); ++step) {
    if (step->to != image.size) image = resize(image, step->to, {.simd = simd});
  }
  return image;
}

}  // namespace triptych

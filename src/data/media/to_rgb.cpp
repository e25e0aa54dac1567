// The conversions of Pillow's convert("RGB") and of compositing on white, with their exact
// rounding.

#include <algorithm>
#include <utility>

#include "data/media/image.h"

namespace triptych {
namespace {

struct Rgb {
  uint8_t r, g, b;
};
struct Rgba {
  uint8_t r, g, b, a;
};

/// a * b / 255, rounded.
int scaled(int a, int b) {
  const int t = a * b + 128;
  return ((t >> 8) + t) >> 8;
}

/// Porter-Duff over on opaque white, in the fixed point of Pillow's alpha_composite.
uint8_t over_white(int value, int alpha) {
  constexpr uint32_t kBits = 7;
  if (alpha == 0) return 255;
  const uint32_t blend = 255u * (255 - alpha);
  const uint32_t alpha_out = 255u * alpha + blend;
  const uint32_t mine = alpha * 255u * 255u * (1u << kBits) / alpha_out;
  const uint32_t white = 255u * (1u << kBits) - mine;
  const uint32_t sum = value * mine + 255u * white + (0x80u << kBits);
  return static_cast<uint8_t>((((sum >> 8) + sum) >> 8) >> kBits);
}

/// Fills the result pixel by pixel with f(pointer to the picture's samples).
template <int kChannels, class F>
void each_pixel(const Picture& picture, std::vector<uint8_t>& out, F f) {
  const uint8_t* in = picture.samples.data();
  for (uint8_t* o = out.data(); o != out.data() + out.size(); o += 3, in += kChannels) {
    const Rgb c = f(in);
    o[0] = c.r, o[1] = c.g, o[2] = c.b;
  }
}

Rgb flatten(Rgba c, AlphaRule alpha) {
  if (alpha == AlphaRule::kDrop) return {c.r, c.g, c.b};
  return {over_white(c.r, c.a), over_white(c.g, c.a), over_white(c.b, c.a)};
}

}  // namespace

int Picture::channels() const {
  switch (mode) {
    case PictureMode::kGrey:
    case PictureMode::kPalette:
      return 1;
    case PictureMode::kGreyAlpha:
      return 2;
    case PictureMode::kRgb:
      return 3;
    case PictureMode::kRgba:
    case PictureMode::kCmyk:
      return 4;
  }
  return 0;
}

RgbImage to_rgb(Picture picture, AlphaRule alpha) {
  RgbImage image{.size = picture.size, .warning = std::move(picture.warning)};
  const auto key = alpha == AlphaRule::kWhite ? picture.color_key : std::nullopt;
  if (picture.mode == PictureMode::kRgb && !key) {
    image.pixels = std::move(picture.samples);
    return image;
  }

  image.pixels.resize(picture.size.pixels() * 3);
  switch (picture.mode) {
    case PictureMode::kGrey:
      each_pixel<1>(picture, image.pixels, [&](const uint8_t* p) -> Rgb {
        const uint8_t v = key && *p == (*key)[0] ? 255 : *p;
        return {v, v, v};
      });
      break;
    case PictureMode::kGreyAlpha:
      each_pixel<2>(picture, image.pixels,
                    [&](const uint8_t* p) { return flatten({p[0], p[0], p[0], p[1]}, alpha); });
      break;
    case PictureMode::kRgb:
      each_pixel<3>(picture, image.pixels, [&](const uint8_t* p) -> Rgb {
        const bool hidden = p[0] == (*key)[0] && p[1] == (*key)[1] && p[2] == (*key)[2];
        return hidden ? Rgb{255, 255, 255} : Rgb{p[0], p[1], p[2]};
      });
      break;
    case PictureMode::kRgba:
      each_pixel<4>(picture, image.pixels,
                    [&](const uint8_t* p) { return flatten({p[0], p[1], p[2], p[3]}, alpha); });
      break;
    case PictureMode::kCmyk:
      each_pixel<4>(picture, image.pixels, [](const uint8_t* p) -> Rgb {
        const int light = 255 - p[3];
        const auto mix = [light](int ink) {
          return static_cast<uint8_t>(std::clamp(light - scaled(ink, light), 0, 255));
        };
        return {mix(p[0]), mix(p[1]), mix(p[2])};
      });
      break;
    case PictureMode::kPalette: {
      std::array<Rgb, 256> colors;
      for (size_t i = 0; i < 256; ++i) {
        const auto& c = picture.palette[i];
        colors[i] = flatten({c[0], c[1], c[2], c[3]}, alpha);
      }
      each_pixel<1>(picture, image.pixels, [&](const uint8_t* p) { return colors[*p]; });
      break;
    }
  }
  return image;
}

Picture to_picture(RgbImage image) {
  return {.mode = PictureMode::kRgb,
          .size = image.size,
          .samples = std::move(image.pixels),
          .warning = std::move(image.warning)};
}

}  // namespace triptych

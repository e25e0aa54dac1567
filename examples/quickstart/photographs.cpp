#include "photographs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "data/media/resize.h"

namespace quickstart {
namespace {

struct Caption {
  std::string_view file, shows;
};
constexpr std::array<Caption, 6> kCaptions = {{{"astronaut.jpg", "an astronaut"},
                                               {"chelsea.jpg", "a cat"},
                                               {"coffee.jpg", "a cup of coffee"},
                                               {"hubble_deep_field.jpg", "galaxies"},
                                               {"retina.jpg", "the inside of an eye"},
                                               {"rocket.jpg", "a rocket"}}};

/// A crop of `image` whose sides have the proportions of `size`, scaled to it.
triptych::RgbImage crop(const triptych::RgbImage& image, triptych::ImageSize size, Random& random) {
  const double fit = std::min(static_cast<double>(image.size.width) / size.width,
                              static_cast<double>(image.size.height) / size.height);
  const double scale = fit * random.between(0.7, 1.0);
  const auto width = static_cast<int64_t>(size.width * scale),
             height = static_cast<int64_t>(size.height * scale);
  const int64_t left = random.below(static_cast<int>(image.size.width - width + 1)),
                top = random.below(static_cast<int>(image.size.height - height + 1));
  triptych::RgbImage part{.size = {width, height}};
  for (int64_t row = 0; row < height; ++row) {
    const auto first = image.pixels.begin() + ((top + row) * image.size.width + left) * 3;
    part.pixels.insert(part.pixels.end(), first, first + width * 3);
  }
  return triptych::resize(part, size);
}

void mirror(triptych::RgbImage& image) {
  const auto width = static_cast<size_t>(image.size.width);
  for (size_t row = 0; row < static_cast<size_t>(image.size.height); ++row) {
    for (size_t left = 0, right = width - 1; left < right; ++left, --right) {
      std::swap_ranges(&image.pixels[(row * width + left) * 3],
                       &image.pixels[(row * width + left) * 3] + 3,
                       &image.pixels[(row * width + right) * 3]);
    }
  }
}

void brighten(triptych::RgbImage& image, double by) {
  for (auto& level : image.pixels) {
    level = static_cast<uint8_t>(std::min(std::lround(level * by), 255L));
  }
}

}  // namespace

Photographs::Photographs(const std::filesystem::path& folder) {
  for (const auto& [file, shows] : kCaptions) {
    photographs_.push_back({triptych::decode_image(folder / file), std::string(shows)});
  }
}

Example Photographs::random_view(Random& random) const {
  constexpr std::array<triptych::ImageSize, 3> kSizes = {{{112, 112}, {140, 112}, {112, 140}}};
  const auto& photograph = random.pick(photographs_);
  auto view = crop(photograph.image, random.pick(kSizes), random);
  if (random.below(2) == 0) mirror(view);
  brighten(view, random.between(0.8, 1.2));
  return {std::move(view), {{"What does the photograph show?", photograph.shows}}};
}

}  // namespace quickstart

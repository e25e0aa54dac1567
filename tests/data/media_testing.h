#pragma once

// What the media tests share: drawn pictures and the goldens.

#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/media/image.h"
#include "support/paths.h"

namespace triptych::testing {

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

inline std::string from_hex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

inline std::vector<uint8_t> pixels_from_hex(const Json& text) {
  const auto bytes = from_hex(text.get<std::string>());
  return {bytes.begin(), bytes.end()};
}

inline const Json& goldens() {
  static const Json all = read_json(source_dir() + "/tests/data/golden/media.json");
  return all;
}

/// Deterministic noise.
inline std::vector<uint8_t> noise(int64_t count, uint32_t seed) {
  std::vector<uint8_t> bytes(count);
  uint32_t state = seed * 2654435761u + 1;
  for (auto& b : bytes) {
    state = state * 1664525u + 1013904223u;
    b = static_cast<uint8_t>(state >> 24);
  }
  return bytes;
}

inline RgbImage noise_image(int64_t width, int64_t height, uint32_t seed = 1) {
  return {.size = {width, height}, .pixels = noise(width * height * 3, seed)};
}

/// A flat picture whose brightness names the frame, so that a decoded frame says which it was.
inline RgbImage numbered_frame(int64_t number, int64_t width = 64, int64_t height = 48) {
  RgbImage image{.size = {width, height}};
  image.pixels.resize(width * height * 3);
  for (int64_t i = 0; i < width * height; ++i) {
    // six bits of the number as black and white columns
    const int64_t bit = i % width * 6 / width;
    const uint8_t value = number >> bit & 1 ? 230 : 20;
    for (int c = 0; c < 3; ++c) image.pixels[3 * i + c] = value;
  }
  return image;
}

inline int64_t number_of(const RgbImage& image) {
  int64_t number = 0;
  for (int64_t bit = 0; bit < 6; ++bit) {
    const int64_t x = (2 * bit + 1) * image.size.width / 12;
    if (image.pixels[(image.size.height / 2 * image.size.width + x) * 3] > 128) {
      number |= int64_t{1} << bit;
    }
  }
  return number;
}

}  // namespace triptych::testing

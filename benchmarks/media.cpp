// Pictures per second on one core: decode, decode + resize, decode + resize + patches, on smooth
// noisy JPEGs like those of benchmarks/reference/baseline_io.py. Prints one JSON line. With a
// folder as argument its JPEGs are taken instead, so that both programs see the same files.

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "data/media/encode.h"
#include "data/media/qwen_vision.h"

namespace {

using namespace triptych;

constexpr int kRounds = 5;
constexpr PixelLimits kLimits{3136, 262144};
constexpr ImageSize kResized{588,
                             448};  // of baseline_io.py; kLimits makes 588 x 420 in the last number

std::vector<std::string> read_folder(const std::filesystem::path& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jpg") files.push_back(read_file(entry.path()));
  }
  require(!files.empty(), folder.string(), ": no .jpg files");
  return files;
}

/// Colour fields of sines with some noise, about as many bytes as a photograph of that size.
std::vector<std::string> draw() {
  constexpr int kPictures = 40;
  constexpr ImageSize kSize{640, 480};
  std::mt19937 random(0);
  std::normal_distribution<double> noise(0, 12);
  std::vector<std::string> files;
  for (int i = 0; i < kPictures; ++i) {
    RgbImage image{.size = kSize};
    for (int64_t p = 0; p < kSize.pixels() * 3; ++p) {
      const auto c = static_cast<double>(p % 3);
      const auto x = static_cast<double>(p / 3 % kSize.width);
      const auto y = static_cast<double>(p / 3 / kSize.width);
      const double wave = std::sin(x / (9 + i % 7) + c) * std::cos(y / (13 + c));
      image.pixels.push_back(
          static_cast<uint8_t>(std::clamp(127 + 100 * wave + noise(random), 0.0, 255.0)));
    }
    files.push_back(encode_jpeg(image, 90));
  }
  return files;
}

/// Pictures per second of CPU time, the best of some rounds.
double rate(const std::vector<std::string>& files,
            const std::function<void(std::span<const std::byte>)>& work) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::clock_t start = std::clock();
    for (const auto& file : files) work(std::as_bytes(std::span(file)));
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    best = std::max(best, static_cast<double>(files.size()) / seconds);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2) {
    std::cerr << "usage: bench_media [FOLDER_OF_JPEGS]\n";
    return 2;
  }
  // Keep freed memory: on a virtual machine the page faults of fresh buffers cost as much as the
  // resize.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  try {
    const auto files = argc == 2 ? read_folder(argv[1]) : draw();
    VisionOptions options;
    options.image = kLimits;
    const QwenVision vision(options);
    const auto decode = rate(files, [](auto bytes) { decode_image(bytes, "picture"); });
    const auto resized =
        rate(files, [](auto bytes) { triptych::resize(decode_image(bytes, "picture"), kResized); });
    const auto patches = rate(files, [&](auto bytes) { vision.image(bytes, "picture"); });
    std::cout
        << fmt::format(
               R"({{"bench": "media", "images": {}, "simd": {}, "decode_img_per_s": {:.1f}, )"
               R"("decode_resize_img_per_s": {:.1f}, "decode_resize_patches_img_per_s": {:.1f}}})",
               files.size(), static_cast<int>(simd_level()), decode, resized, patches)
        << std::endl;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
}

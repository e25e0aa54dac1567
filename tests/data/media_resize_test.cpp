#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "data/media/resize.h"
#include "data/media/resize_plan.h"
#include "tests/data/media_testing.h"

namespace triptych {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace triptych::testing;

ImageSize size_of(const Json& pair) { return {pair[0].get<int64_t>(), pair[1].get<int64_t>()}; }

TEST(Resize, EqualsPillowAndTorchByteForByte) {
  for (const auto& golden : goldens()["resizes"]) {
    const auto from = size_of(golden["from"]), to = size_of(golden["to"]);
    const auto pixels = pixels_from_hex(golden["pixels"]);
    for (const auto& [filter, name] : {std::pair{ResizeFilter::kBicubic, "bicubic"},
                                       std::pair{ResizeFilter::kBilinear, "bilinear"}}) {
      const auto pillow = resize(pixels, from, to, 3, {.filter = filter});
      EXPECT_EQ(pillow, pixels_from_hex(golden[std::string(name) + " pillow"]))
          << name << " " << golden["from"] << golden["to"];
      const auto torch =
          resize(pixels, from, to, 3, {.filter = filter, .precision = WeightPrecision::kTorch});
      EXPECT_EQ(torch, pixels_from_hex(golden[std::string(name) + " torch"]))
          << name << " " << golden["from"] << golden["to"];
    }
    EXPECT_EQ(resize_nearest(pixels, from, to, 3), pixels_from_hex(golden["nearest pillow"]));
  }
}

struct Case {
  int64_t w, h, to_w, to_h;
  int channels;
};

class ResizeKernelTest : public ::testing::TestWithParam<Case> {};

TEST_P(ResizeKernelTest, EveryInstructionSetGivesTheSameBytes) {
  const auto [w, h, to_w, to_h, channels] = GetParam();
  const auto pixels = noise(w * h * channels, 3);
  for (const auto precision : {WeightPrecision::kPillow, WeightPrecision::kTorch}) {
    for (const auto filter : {ResizeFilter::kBicubic, ResizeFilter::kBilinear}) {
      const auto run = [&](SimdLevel simd) {
        return resize(pixels, {w, h}, {to_w, to_h}, channels,
                      {.filter = filter, .precision = precision, .simd = simd});
      };
      const auto plain = run(SimdLevel::kPortable);
      for (const auto simd : {SimdLevel::kAvx2, SimdLevel::kAvx512}) {
        if (simd > simd_level()) continue;
        EXPECT_EQ(run(simd), plain) << static_cast<int>(simd);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, ResizeKernelTest,
    ::testing::Values(Case{640, 480, 588, 448, 3}, Case{17, 9, 28, 28, 3}, Case{1, 1, 28, 28, 3},
                      Case{3, 2, 5, 7, 3},
                      Case{300, 7, 28, 3, 3},  // more taps than a row of output
                      Case{22, 5, 21, 4, 3}, Case{64, 1, 64, 2, 3}, Case{65, 6, 33, 6, 3},
                      Case{5, 301, 4, 300, 3}, Case{40, 30, 31, 29, 1}, Case{40, 30, 31, 29, 4}));

TEST(Resize, WeightsSumToOne) {
  for (const auto& [in, out] : {std::pair{640, 588}, {7, 300}, {1000, 28}, {2, 1}}) {
    const auto axis = make_resize_axis(in, out, ResizeFilter::kBicubic, WeightPrecision::kPillow);
    for (int64_t o = 0; o < out; ++o) {
      int64_t sum = 0;
      for (int t = 0; t < axis.taps; ++t) sum += axis.weights[o * axis.taps + t];
      EXPECT_NEAR(static_cast<double>(sum), 1 << axis.bits, axis.taps / 2.0);  // half a unit a tap
    }
  }
}

TEST(Resize, SameSizeIsACopy) {
  const auto image = noise_image(13, 8);
  EXPECT_EQ(resize(image, image.size).pixels, image.pixels);
}

TEST(ResizeErrors, NameTheSizes) {
  const auto pixels = noise(12, 1);
  EXPECT_THAT([&] { resize(pixels, {2, 2}, {0, 5}, 3); },
              ThrowsMessage<Error>(HasSubstr("from 2 x 2 to 0 x 5")));
  EXPECT_THAT([&] { resize(pixels, {3, 2}, {5, 5}, 3); },
              ThrowsMessage<Error>(HasSubstr("12 bytes for 3 x 2 pixels of 3 channels")));
  EXPECT_THAT([&] { resize(pixels, {2, 1}, {5, 5}, 6); },
              ThrowsMessage<Error>(HasSubstr("6 channels")));
}

}  // namespace
}  // namespace triptych

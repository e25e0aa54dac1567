#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "base/error.h"
#include "base/files.h"
#include "data/media/encode.h"
#include "data/media/patchify.h"
#include "data/media/pre_resize.h"
#include "data/media/qwen_vision.h"
#include "support/scratch.h"
#include "tests/data/media_testing.h"

namespace triptych {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace triptych::testing;

constexpr PixelLimits kDefault{3136, 1003520};

struct SizeCase {
  ImageSize from;
  PixelLimits limits;
  ImageSize to;
};
class SmartResize : public ::testing::TestWithParam<SizeCase> {};
TEST_P(SmartResize, EqualsTheReference) {
  EXPECT_EQ(smart_resize(GetParam().from, 28, GetParam().limits), GetParam().to);
}
// width first, the reference's table in docs/spec/qwen2_5_vl.md 4.1 has the height first
INSTANTIATE_TEST_SUITE_P(
    Table, SmartResize,
    ::testing::Values(
        SizeCase{{180, 100}, kDefault, {168, 112}}, SizeCase{{61, 290}, kDefault, {56, 280}},
        SizeCase{{30, 40}, kDefault, {56, 84}}, SizeCase{{400, 300}, kDefault, {392, 308}},
        SizeCase{{14, 14}, kDefault, {56, 56}}, SizeCase{{199, 1}, kDefault, {812, 28}},
        SizeCase{{1920, 1080}, kDefault, {1316, 728}},
        SizeCase{{17, 3000}, {3136, 31360}, {28, 2352}},
        SizeCase{{70, 98}, {0, 1000000}, {56, 112}},  // halves to even: 2.5 and 3.5
        SizeCase{{640, 480}, {3136, 262144}, {588, 420}}));

TEST(SmartResizeErrors, LongAndEmptyPictures) {
  EXPECT_THAT([] { smart_resize({201, 1}, 28, kDefault, "a.png"); },
              ThrowsMessage<DataError>(HasSubstr("a.png: 201 x 1 pixels: one side is 201 times")));
  EXPECT_EQ(smart_resize({200, 1}, 28, kDefault).height, 28);
  EXPECT_THAT([] { smart_resize({0, 5}, 28, kDefault); },
              ThrowsMessage<DataError>(HasSubstr("0 x 5")));
  EXPECT_THAT([] { smart_resize({5, 5}, 28, {0, 100000}); },
              ThrowsMessage<DataError>(HasSubstr("round to nothing")));
}

TEST(QwenVision, PatchesEqualTheHubsProcessorBitByBit) {
  VisionOptions options;
  options.image = {3136, 6272};
  const QwenVision vision(options);
  for (const auto& golden : goldens()["patches"]) {
    const RgbImage image{.size = {golden["size"][0], golden["size"][1]},
                         .pixels = pixels_from_hex(golden["pixels"])};
    const auto media = vision.image(as_bytes(encode_png(image)), "golden");
    EXPECT_EQ(media.grid, (Grid{golden["grid"][0], golden["grid"][1], golden["grid"][2]}));
    EXPECT_EQ(media.rows.size(), media.grid.patches() * vision.patch_dim());
    for (size_t i = 0; i < golden["places"].size(); ++i) {
      const size_t place = golden["places"][i];
      EXPECT_EQ(std::bit_cast<uint32_t>(media.rows[place]), golden["bits"][i].get<uint32_t>());
    }
  }
}

/// The order written down once more, element by element.
float element(const std::vector<RgbImage>& frames, Grid grid, int64_t row, int64_t column) {
  constexpr int64_t P = 14, M = 2, T = 2;
  const int64_t cells_w = grid.w / M, in_cell = row % (M * M), cell = row / (M * M);
  const int64_t t = cell / (cells_w * grid.h / M), cell_y = cell / cells_w % (grid.h / M);
  const int64_t c = column / (T * P * P), f = column / (P * P) % T;
  const int64_t y = (cell_y * M + in_cell / M) * P + column / P % P;
  const int64_t x = (cell % cells_w * M + in_cell % M) * P + column % P;
  const auto& frame = frames[std::min<int64_t>(t * T + f, std::ssize(frames) - 1)];
  const VisionOptions o;
  const auto level = frame.pixels[(y * grid.w * P + x) * 3 + c];
  const auto value = static_cast<float>(level * (1.0 / 255));
  return (value - static_cast<float>(o.mean[c])) / static_cast<float>(o.std[c]);
}

void expect_order(const MediaPatches& media, const std::vector<RgbImage>& frames) {
  constexpr int64_t kDim = 1176;
  int64_t wrong = 0;
  for (int64_t i = 0; i < std::ssize(media.rows); ++i) {
    wrong += media.rows[i] != element(frames, media.grid, i / kDim, i % kDim);
  }
  EXPECT_EQ(wrong, 0);
}

TEST(QwenVision, PatchOrderOfAPicture) {
  const auto image = noise_image(84, 56);  // needs no resize
  const auto media = QwenVision({}).image(to_picture(image));
  ASSERT_EQ(media.grid, (Grid{1, 4, 6}));
  expect_order(media, {image});  // both frames of the step are the picture
}

TEST(QwenVision, PatchOrderOfAClipWithAnOddFrame) {
  VisionOptions options;
  options.resize = ResizeChoice::kPillow;
  const std::vector<RgbImage> frames{noise_image(84, 56, 1), noise_image(84, 56, 2),
                                     noise_image(84, 56, 3)};
  const auto media = QwenVision(options).video(frames, 4.0);
  ASSERT_EQ(media.grid, (Grid{2, 4, 6}));
  EXPECT_EQ(media.seconds_per_grid, 0.5);
  EXPECT_EQ(media.kind, MediaKind::kVideo);
  expect_order(media, frames);
}

TEST(Patchify, EveryInstructionSetGivesTheSameBits) {
  for (const auto rule : {NormalizeRule::kPillow, NormalizeRule::kTorch}) {
    const VisionOptions o;
    const NormalizeTable table(o.mean, o.std, o.rescale, rule);
    for (const auto& how : table.arithmetic)
      EXPECT_TRUE(how.exact);  // the fast way is the one tested
    for (const PatchShape shape :
         {PatchShape{14, 2, 2}, PatchShape{16, 2, 2}, PatchShape{6, 3, 1}}) {
      const int64_t width = shape.cell() * 3;
      const auto a = noise(shape.cell() * width * 3, 1), b = noise(shape.cell() * width * 3, 2);
      std::vector<const uint8_t*> bands{a.data()};
      if (shape.temporal == 2) bands.push_back(b.data());
      const auto run = [&](SimdLevel simd) {
        std::vector<float> rows;
        append_cell_row(bands, width, shape, table, simd, rows);
        return rows;
      };
      const auto plain = run(SimdLevel::kPortable);
      EXPECT_EQ(std::ssize(plain), 3 * shape.merge * shape.merge * shape.dim());
      for (const auto simd : {SimdLevel::kAvx2, SimdLevel::kAvx512}) {
        if (simd > simd_level()) continue;
        EXPECT_EQ(run(simd), plain);
      }
    }
  }
}

TEST(Patchify, OddMeansFallBackToTheTable) {
  // a mean that makes the corrected division inexact somewhere must not change the result
  for (int i = 0; i < 50; ++i) {
    const double mean = 0.011 * i, std = 0.2 + 0.0137 * i;
    const NormalizeTable table({mean, mean, mean}, {std, std, std}, 1.0 / 255,
                               NormalizeRule::kPillow);
    std::vector<uint8_t> levels(28 * 28 * 3);
    for (size_t p = 0; p < levels.size(); ++p) levels[p] = static_cast<uint8_t>(p / 3);
    const uint8_t* band = levels.data();
    std::vector<float> rows, plain;
    append_cell_row({&band, 1}, 28, {}, table, simd_level(), rows);
    append_cell_row({&band, 1}, 28, {}, table, SimdLevel::kPortable, plain);
    EXPECT_EQ(rows, plain);
  }
}

TEST(QwenVision, PlanKnowsTheGridFromTheHeader) {
  const Scratch folder;
  write_png(folder / "a.png", noise_image(180, 100));
  const QwenVision vision({});
  const auto plan = vision.plan_image(folder / "a.png");
  EXPECT_EQ(plan.grid, (Grid{1, 8, 12}));
  EXPECT_EQ(plan.tokens, 24);
  EXPECT_EQ(vision.image(folder / "a.png").grid, plan.grid);
}

struct PreCase {
  ImageSize from;
  PreResize rule;
  PixelLimits limits;
  std::vector<ImageSize> to;
};
class PreResizeSteps : public ::testing::TestWithParam<PreCase> {};
TEST_P(PreResizeSteps, Sizes) {
  const auto& [from, rule, limits, to] = GetParam();
  std::vector<ImageSize> got;
  for (const auto& step : pre_resize_steps(from, rule, limits, "x")) got.push_back(step.to);
  EXPECT_EQ(got, to);
}
INSTANTIATE_TEST_SUITE_P(
    Rules, PreResizeSteps,
    ::testing::Values(PreCase{{640, 480}, PreResize::kNone, {1024, 2048}, {}},
                      PreCase{{640, 480}, PreResize::kLlamaFactory, {1024, 262144}, {{591, 443}}},
                      PreCase{{20, 20}, PreResize::kLlamaFactory, {1024, 589824}, {{32, 32}}},
                      PreCase{{20, 60}, PreResize::kMindSpeed, {0, 262144}, {{28, 60}}},
                      PreCase{{30000, 40}, PreResize::kLlamaFactory, {1024, 2097152}, {{7200, 40}}},
                      PreCase{
                          {40, 30000}, PreResize::kLlamaFactory, {1024, 2097152}, {{40, 7200}}}));

TEST(PreResizeSteps, MindSpeedPicksPixels) {
  const PixelLimits limits{0, 1000};
  EXPECT_TRUE(pre_resize_steps({100, 100}, PreResize::kMindSpeed, limits, "x")[0].nearest);
  EXPECT_FALSE(pre_resize_steps({100, 100}, PreResize::kLlamaFactory, limits, "x")[0].nearest);
  EXPECT_THAT([&] { pre_resize_steps({100000, 1}, PreResize::kMindSpeed, limits, "a.png"); },
              ThrowsMessage<DataError>(HasSubstr("a.png: resizing 100000 x 1")));
}

std::string folder_with(const Scratch& folder, const std::string& config) {
  write_file_atomically(folder / "preprocessor_config.json", config);
  return (folder / "").string();
}

TEST(VisionOptions, BothSpellingsOfTheLimits) {
  const Scratch folder;
  auto options =
      read_vision_options(folder_with(folder, R"({"min_pixels": 3136, "max_pixels": 12845056,
      "patch_size": 14, "image_processor_type": "Qwen2VLImageProcessor"})"));
  EXPECT_EQ(options.image, (PixelLimits{3136, 12845056}));
  EXPECT_EQ(options.video, options.image);
  EXPECT_FALSE(options.fast_processor);
  options =
      read_vision_options(folder_with(folder, R"({"size": {"shortest_edge": 100, "longest_edge":
      5000}, "max_pixels": 6000, "image_processor_type": "Qwen2VLImageProcessorFast"})"));
  EXPECT_EQ(options.image, (PixelLimits{100, 6000}));
  EXPECT_TRUE(options.fast_processor);
  write_file_atomically(folder / "video_preprocessor_config.json", R"({"max_pixels": 777})");
  EXPECT_EQ(read_vision_options(folder / "").video, (PixelLimits{100, 777}));
}

TEST(VisionOptions, RefusesWhatItDoesNotDo) {
  const Scratch folder;
  EXPECT_THAT([&] { read_vision_options(folder_with(folder, R"({"resample": 2})")); },
              ThrowsMessage<DataError>(HasSubstr("'resample' is 2")));
  EXPECT_THAT([&] { read_vision_options(folder_with(folder, R"({"do_resize": false})")); },
              ThrowsMessage<DataError>(HasSubstr("'do_resize' is false")));
  EXPECT_THAT(
      [&] { read_vision_options(folder_with(folder, R"({"image_processor_type": "CLIP"})")); },
      ThrowsMessage<DataError>(HasSubstr("'CLIP'")));
  EXPECT_THAT(
      [&] { read_vision_options(folder_with(folder, R"({"min_pixels": 9, "max_pixels": 8})")); },
      ThrowsMessage<DataError>(HasSubstr("min_pixels (9) is above max_pixels (8)")));
  EXPECT_THAT([&] { read_vision_options(folder_with(folder, R"({"image_mean": [1, 2]})")); },
              ThrowsMessage<DataError>(HasSubstr("'image_mean' must be three numbers")));
  EXPECT_THAT([&] { read_vision_options(folder_with(folder, R"({"image_std": [1, 0, 1]})")); },
              ThrowsMessage<DataError>(HasSubstr("'image_std' must be above 0, got 0")));
}

TEST(VisionOptions, PatchesAreThoseOfTheModel) {
  const Scratch folder;
  write_file_atomically(
      folder / "config.json",
      R"({"vision_config": {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}})");
  read_vision_options(folder_with(folder, R"({"patch_size": 14, "merge_size": 2})"));
  for (const auto& [written, said] : std::vector<std::pair<std::string, std::string>>{
           {R"({"patch_size": 16})", "patch_size is 16, vision_config.patch_size of "},
           {R"({"merge_size": 3})", "merge_size is 3, vision_config.spatial_merge_size of "},
           {R"({"temporal_patch_size": 1})", "temporal_patch_size is 1, vision_config.temporal_"}})
    EXPECT_THAT([&] { read_vision_options(folder_with(folder, written)); },
                ThrowsMessage<DataError>(HasSubstr(said)));
}

TEST(VisionOptions, OverridesGoToThePreResizeWhenThereIsOne) {
  VisionOverrides overrides{.image_max_pixels = 262144};
  EXPECT_EQ(apply({}, overrides).image.max_pixels, 262144);
  overrides.pre_resize = PreResize::kMindSpeed;
  const auto options = apply({}, overrides);
  EXPECT_EQ(options.image.max_pixels, 1003520);
  EXPECT_EQ(options.image_pre.max_pixels, 262144);
  EXPECT_EQ(options.image_pre.min_pixels, 1024);
  EXPECT_THAT([] { QwenVision(apply({}, {.image_min_pixels = 5000000})); },
              ThrowsMessage<UsageError>(HasSubstr("data.image_min_pixels (5000000)")));
}

}  // namespace
}  // namespace triptych

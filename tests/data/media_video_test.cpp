#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "data/media/encode.h"
#include "data/media/qwen_vision.h"
#include "data/media/video.h"
#include "support/scratch.h"
#include "tests/data/media_testing.h"

namespace triptych {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace triptych::testing;
using Indices = std::vector<int64_t>;

struct RuleCase {
  VideoSampling rule;
  VideoInfo info;
  VideoSamplingOptions options;
  Indices indices;
  double fps;
};
VideoInfo clip(int64_t frames, double fps) {
  return {.size = {64, 48},
          .frames = frames,
          .fps = fps,
          .duration_s = static_cast<double>(frames) / fps};
}

class SamplingRules : public ::testing::TestWithParam<RuleCase> {};
TEST_P(SamplingRules, TakeTheReferencesFrames) {
  auto [rule, info, options, indices, fps] = GetParam();
  options.rule = rule;
  const auto choice = choose_frames(info, options);
  EXPECT_EQ(choice.indices, indices);
  EXPECT_NEAR(choice.fps, fps, 1e-9);
}
// indices from torch.arange, torch.linspace and numpy.linspace
INSTANTIATE_TEST_SUITE_P(
    Rules, SamplingRules,
    ::testing::Values(
        RuleCase{VideoSampling::kTransformers,
                 clip(100, 25),
                 {.fps = 2},
                 {0, 12, 25, 37, 50, 62, 75, 87},
                 2.0},
        RuleCase{VideoSampling::kTransformers,
                 clip(10, 25),
                 {.fps = 2},
                 {0, 2, 5, 7},
                 10.0},  // 4 at least
        RuleCase{VideoSampling::kTransformers, clip(3, 25), {.fps = 2}, {0, 1}, 2 / 3.0 * 25},
        RuleCase{VideoSampling::kTransformers,
                 clip(100, 25),
                 {.fps = 2, .max_frames = 5},
                 {0, 25, 50, 75},
                 1.0},
        RuleCase{VideoSampling::kQwenVlUtils,
                 clip(100, 25),
                 {.fps = 2},
                 {0, 14, 28, 42, 57, 71, 85, 99},
                 2.0},
        RuleCase{VideoSampling::kLlamaFactory, clip(100, 25), {.fps = 1}, {0, 33, 66, 99}, 1.0},
        RuleCase{VideoSampling::kLlamaFactory,
                 clip(75, 25),
                 {.fps = 1},
                 {0, 37, 74, 74},
                 1.0},  // odd: repeat
        RuleCase{VideoSampling::kLlamaFactory, clip(5, 25), {.fps = 1}, {0, 0}, 5.0},
        RuleCase{VideoSampling::kLlamaFactory,
                 clip(100, 25),
                 {.fps = 60, .max_frames = 4},
                 {0, 33, 66, 99},
                 1.0}));

TEST(SamplingRules, OneFrameIsTooFewForPairs) {
  EXPECT_THAT([] { choose_frames(clip(1, 25), {}, 2, "a.mp4"); },
              ThrowsMessage<DataError>(
                  HasSubstr("a.mp4: 1 frames; this sampling rule takes a multiple of 2")));
}

/// 60 numbered frames with a key frame every 10; more than 60 start again.
class Clip : public ::testing::Test {
 protected:
  std::filesystem::path write(int64_t frames,
                              VideoEncodeOptions options = {.fps = 10, .key_frame_every = 10},
                              const std::string& name = "clip.mp4") {
    std::vector<RgbImage> drawn;
    for (int64_t i = 0; i < frames; ++i) drawn.push_back(numbered_frame(i % 64));
    write_video(folder_ / name, drawn, options);
    return folder_ / name;
  }
  static Indices numbers(const std::vector<RgbImage>& frames) {
    Indices found;
    for (const auto& frame : frames) found.push_back(number_of(frame));
    return found;
  }
  Scratch folder_;
};

TEST_F(Clip, ProbeKnowsSizeRateAndLength) {
  const auto info = probe_video(write(60));
  EXPECT_EQ(info.size, (ImageSize{64, 48}));
  EXPECT_EQ(info.frames, 60);
  EXPECT_NEAR(info.fps, 10, 1e-9);
  EXPECT_NEAR(info.duration_s, 6, 1e-3);
  EXPECT_EQ(info.rotation, 0);
}

TEST_F(Clip, EveryFrameComesBackInOrder) {
  for (const auto codec : {VideoCodec::kAuto, VideoCodec::kMpeg4}) {
    const auto path = write(60, {.fps = 10, .codec = codec});
    Indices all;
    for (int64_t i = 0; i < 60; ++i) all.push_back(i);
    EXPECT_EQ(numbers(read_frames(path, all)), all);
  }
}

TEST_F(Clip, SeekingFindsTheFramesThatDecodingThroughFinds) {
  for (const auto codec : {VideoCodec::kAuto, VideoCodec::kMpeg4}) {
    for (const int keys : {1, 2, 3, 10, 250}) {
      for (const char* name :
           {"clip.mp4", "clip.mkv"}) {  // one seeks by decoding time, one by showing
        const auto path = write(400, {.fps = 10, .codec = codec, .key_frame_every = keys}, name);
        // gaps of more than 64 frames are skipped; places right at, before and behind key frames
        for (const Indices& wanted : {Indices{0, 99, 200, 399}, Indices{150, 151, 320, 320},
                                      Indices{71}, Indices{70, 289}}) {
          Indices expected;
          for (const int64_t i : wanted) expected.push_back(i % 64);
          EXPECT_EQ(numbers(read_frames(path, wanted)), expected) << keys << " " << name;
        }
      }
    }
  }
}

TEST_F(Clip, ColoursSurvive) {
  const std::array<std::array<uint8_t, 3>, 5> colors{
      {{230, 30, 30}, {30, 200, 40}, {40, 60, 220}, {250, 250, 250}, {5, 5, 5}}};
  std::vector<RgbImage> frames;
  for (const auto& color : colors) {
    RgbImage frame{.size = {64, 64}};
    for (int i = 0; i < 64 * 64; ++i)
      frame.pixels.insert(frame.pixels.end(), color.begin(), color.end());
    frames.push_back(frame);
  }
  write_video(folder_ / "c.mp4", frames, {.fps = 5, .quality = 5});
  const auto back = read_frames(folder_ / "c.mp4", Indices{0, 1, 2, 3, 4});
  for (size_t f = 0; f < frames.size(); ++f) {
    for (int c = 0; c < 3; ++c) {
      // limited range has 220 steps for 256 levels, chroma likewise; a wrong matrix is off by 20
      // and more
      EXPECT_NEAR(back[f].pixels[(32 * 64 + 32) * 3 + c], colors[f][c], 4) << f << " " << c;
    }
  }
}

TEST_F(Clip, AFrameBeyondTheEndIsAnError) {
  const auto path = write(12);
  EXPECT_THAT([&] { read_frames(path, Indices{3, 12}); },
              ThrowsMessage<DataError>(AllOf(HasSubstr("clip.mp4: frame 12 (1.20 s)"),
                                             HasSubstr("the video ends after 12 frames"))));
}

TEST_F(Clip, DamageInsideIsNeverPassedOver) {
  const auto path = write(60, {.fps = 10, .quality = 5, .key_frame_every = 10});
  auto bytes = read_file(path);
  const auto data = bytes.find("mdat");
  ASSERT_NE(data, std::string::npos);
  // overwrite a stretch in the middle of the pictures' data
  const size_t middle = data + (bytes.size() - data) / 3;
  for (size_t i = 0; i < 400; ++i) bytes[middle + i] = static_cast<char>(0x5a + i * 7);
  write_file_atomically(folder_ / "bad.mp4", bytes);
  Indices all;
  for (int64_t i = 0; i < 60; ++i) all.push_back(i);
  EXPECT_THAT([&] { read_frames(folder_ / "bad.mp4", all); },
              ThrowsMessage<DataError>(HasSubstr("bad.mp4: frame ")));
}

TEST_F(Clip, TruncatedAndForeignFiles) {
  const auto path = write(30);
  const auto bytes = read_file(path);
  write_file_atomically(folder_ / "cut.mp4",
                        bytes.substr(0, bytes.size() / 2));  // mp4: index at the end
  EXPECT_THAT([&] { probe_video(folder_ / "cut.mp4"); },
              ThrowsMessage<DataError>(HasSubstr("cut.mp4: ")));
  write_file_atomically(folder_ / "text.mp4", "this is not a video");
  EXPECT_THAT([&] { probe_video(folder_ / "text.mp4"); },
              ThrowsMessage<DataError>(HasSubstr("text.mp4: cannot be opened as a video")));
  // FFmpeg would say on standard error what this one lacks.
  write_file_atomically(folder_ / "text.mjpg", "this is not a video");
  ::testing::internal::CaptureStderr();
  EXPECT_THAT([&] { probe_video(folder_ / "text.mjpg"); },
              ThrowsMessage<DataError>(HasSubstr("text.mjpg: cannot be opened as a video")));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_THAT([&] { probe_video(folder_ / "missing.mp4"); },
              ThrowsMessage<DataError>(HasSubstr("No such file")));
}

TEST_F(Clip, LimitsHold) {
  const auto path = write(30);
  EXPECT_THAT([&] { probe_video(path, {.frame = {.max_pixels = 100}}); },
              ThrowsMessage<DataError>(HasSubstr("frames of 64 x 48 pixels, the limit is 100")));
  EXPECT_THAT([&] { probe_video(path, {.max_frames = 29}); },
              ThrowsMessage<DataError>(HasSubstr("30 frames, the limit is 29")));
}

TEST_F(Clip, PatchesOfAFile) {
  VisionOptions options;
  options.sampling = {.fps = 2};
  const QwenVision vision(options);
  const VideoSource source{.file = write(60)};
  const auto plan = vision.plan_video(source);
  EXPECT_EQ(plan.frames.size(), 12u);
  EXPECT_EQ(plan.grid.t, 6);
  EXPECT_DOUBLE_EQ(plan.seconds_per_grid, 1.0);
  EXPECT_EQ(plan.tokens, plan.grid.patches() / 4);
  const auto media = vision.video(source);
  EXPECT_EQ(media.grid, plan.grid);
  EXPECT_EQ(media.rows.size(), plan.grid.patches() * 1176);
  // the same frames, decoded apart
  const auto frames = read_frames(source.file, plan.frames);
  EXPECT_EQ(vision.video(frames, 2.0).rows, media.rows);
}

TEST_F(Clip, PicturesAsAVideo) {
  VideoSource source;
  std::vector<RgbImage> frames;
  for (int i = 0; i < 3; ++i) {
    frames.push_back(noise_image(84, 56, i + 1));
    source.pictures.push_back(folder_ / ("f" + std::to_string(i) + ".png"));
    write_png(source.pictures.back(), frames.back());
  }
  VisionOptions options;
  const QwenVision vision(options);
  const auto media = vision.video(source);
  EXPECT_EQ(media.grid, (Grid{2, 4, 6}));
  EXPECT_DOUBLE_EQ(media.seconds_per_grid,
                   2.0 / 24);  // transformers: 24 frames a second when unknown
  EXPECT_EQ(media.rows, vision.video(frames, 0).rows);
  options.sampling.rule = VideoSampling::kLlamaFactory;
  EXPECT_DOUBLE_EQ(QwenVision(options).plan_video(source).seconds_per_grid, 1.0);
  write_png(source.pictures[1], noise_image(56, 84));
  EXPECT_THAT(
      [&] { vision.video(source); },
      ThrowsMessage<DataError>(HasSubstr("a frame is 56 x 84 pixels, the first is 84 x 56")));
  EXPECT_THAT([&] { vision.plan_video({}); },
              ThrowsMessage<DataError>(HasSubstr("at least one frame")));
}

TEST_F(Clip, WriterRefusesOddAndMixedSizes) {
  const std::vector<RgbImage> odd{noise_image(63, 48)},
      mixed{noise_image(64, 48), noise_image(64, 50)};
  EXPECT_THAT([&] { write_video(folder_ / "x.mp4", odd); },
              ThrowsMessage<Error>(HasSubstr("must be even")));
  EXPECT_THAT([&] { write_video(folder_ / "x.mp4", mixed); },
              ThrowsMessage<Error>(HasSubstr("frame 1 is 64 x 50 pixels")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.mp4"));
}

}  // namespace
}  // namespace triptych

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/qwen2_5_vl/positions.h"

namespace triptych::qwen2_5_vl {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int32_t kImage = 151655, kVideo = 151656, kStart = 151652, kEnd = 151653;

// The worked example of docs/spec/qwen2_5_vl.md, 2.3, recorded from the reference.
TEST(VisionIndex, WorkedExample) {
  const std::vector<MediaGrid> grids{{1, 8, 12}, {1, 20, 4}, {1, 6, 4}, {1, 10, 14}};
  const auto index = vision_index(grids, preset("qwen2_5_vl_7b").vision);
  EXPECT_THAT(index.cu_window_seqlens,
              ElementsAre(0, 64, 96, 128, 160, 176, 200, 264, 312, 328, 340));
  EXPECT_THAT(index.cu_seqlens, ElementsAre(0, 96, 176, 200, 340));
  const std::vector<int64_t> start{0,  1,  2,  3, 6, 7,  8,  9,  12, 13, 14, 15, 18,
                                   19, 20, 21, 4, 5, 10, 11, 16, 17, 22, 23, 24};
  ASSERT_GE(index.window_index.size(), start.size());
  EXPECT_THAT(
      std::vector<int64_t>(index.window_index.begin(), index.window_index.begin() + start.size()),
      ElementsAreArray(start));
  EXPECT_EQ(index.window_index.size(), 85u);
}

TEST(VisionIndex, ReverseUndoesTheOrder) {
  const std::vector<MediaGrid> grids{{3, 10, 14, true, 1.0}, {1, 6, 18}};
  const auto index = vision_index(grids, preset("qwen2_5_vl_3b").vision);
  for (size_t cell = 0; cell < index.window_index.size(); ++cell) {
    EXPECT_EQ(index.window_index[index.reverse_index[cell]], static_cast<int64_t>(cell));
  }
}

TEST(VisionIndex, TimeStepsAreSegmentsOfTheirOwn) {
  const std::vector<MediaGrid> grids{{3, 4, 4, true, 1.0}};
  const auto index = vision_index(grids, preset("qwen2_5_vl_3b").vision);
  EXPECT_THAT(index.cu_seqlens, ElementsAre(0, 16, 32, 48));
  EXPECT_THAT(index.cu_window_seqlens, ElementsAre(0, 16, 32, 48));
}

TEST(VisionIndex, PatchesOfACellFollowEachOther) {
  const std::vector<MediaGrid> grids{{1, 2, 4}};
  const auto index = vision_index(grids, preset("qwen2_5_vl_3b").vision);
  EXPECT_THAT(index.rows, ElementsAre(0, 0, 1, 1, 0, 0, 1, 1));
  EXPECT_THAT(index.columns, ElementsAre(0, 1, 0, 1, 2, 3, 2, 3));
}

TEST(VisionIndex, RefusesOddGrids) {
  const std::vector<MediaGrid> grids{{1, 3, 4}};
  EXPECT_THAT([&] { vision_index(grids, preset("qwen2_5_vl_3b").vision); },
              ThrowsMessage<DataError>(HasSubstr("(1, 3, 4)")));
}

TEST(TextPositions, ImageTakesOneTimeStep) {
  const std::vector<int32_t> tokens{1,      kStart, kImage, kImage, kImage,
                                    kImage, kImage, kImage, kEnd,   2};
  const std::vector<MediaGrid> grids{{1, 4, 6}};
  const auto p = text_positions(tokens, grids, preset("qwen2_5_vl_7b"));
  EXPECT_THAT(p.temporal, ElementsAre(0, 1, 2, 2, 2, 2, 2, 2, 5, 6));
  EXPECT_THAT(p.height, ElementsAre(0, 1, 2, 2, 2, 3, 3, 3, 5, 6));
  EXPECT_THAT(p.width, ElementsAre(0, 1, 2, 3, 4, 2, 3, 4, 5, 6));
  EXPECT_EQ(p.delta, 7 - 10);
}

// Grid (3, 8, 12) at 5/3 s a step: text after the video starts at c + 6 or c + 7 (spec, 2.7).
TEST(TextPositions, TwoRulesAfterAVideo) {
  std::vector<int32_t> tokens{kStart};
  tokens.insert(tokens.end(), 3 * 4 * 6, kVideo);
  tokens.push_back(kEnd);
  const std::vector<MediaGrid> grids{{3, 8, 12, true, 5.0 / 3}};
  auto options = preset("qwen2_5_vl_7b");
  const auto hw = text_positions(tokens, grids, options);
  EXPECT_EQ(hw.temporal.back(), 1 + 6);
  EXPECT_EQ(hw.temporal[1 + 24], 1 + 3);  // trunc(1 * 3.333)
  EXPECT_EQ(hw.temporal[1 + 48], 1 + 6);  // trunc(2 * 3.333): cut after the product, not before
  options.video_position_rule = VideoPositionRule::kMaxAll;
  EXPECT_EQ(text_positions(tokens, grids, options).temporal.back(), 1 + 7);
}

struct Bad {
  std::vector<int32_t> tokens;
  std::vector<MediaGrid> grids;
  const char* message;
};
class TextPositionErrors : public testing::TestWithParam<Bad> {};

TEST_P(TextPositionErrors, AreNamed) {
  EXPECT_THAT([] { text_positions(GetParam().tokens, GetParam().grids, preset("qwen2_5_vl_7b")); },
              ThrowsMessage<DataError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, TextPositionErrors,
    testing::Values(Bad{{1, kImage}, {}, "has only 0 pictures"},
                    Bad{{1, 2}, {{1, 2, 2}}, "but placeholders for 0"},
                    Bad{{kImage, 1}, {{1, 2, 4}}, "has only 1 placeholders"},
                    Bad{{kImage, kImage, 1}, {{1, 2, 2}}, "has more than 1 placeholders"},
                    Bad{{kVideo, 1}, {{1, 2, 2}}, "is an image"}));

}  // namespace
}  // namespace triptych::qwen2_5_vl

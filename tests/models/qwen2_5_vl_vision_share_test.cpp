#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "models/qwen2_5_vl/vision_share.h"

namespace triptych::qwen2_5_vl {
namespace {

using testing::ElementsAre;

const VisionOptions& options() {
  static const auto vision = preset("qwen2_5_vl_3b").vision;
  return vision;
}

VisionShare share(const std::vector<MediaGrid>& grids, int64_t context, int64_t rank,
                  VisionContext choice, BalanceVision balance = BalanceVision::kContext) {
  return share_vision(grids, options(), context, rank, choice, balance);
}

const std::vector<MediaGrid> kGrids{{1, 8, 12}, {3, 20, 4, true, 1.0}, {1, 6, 4}, {1, 10, 14}};
constexpr int64_t kCells = 24 + 3 * 20 + 6 + 35;

// Every cell is on one rank; a rank's index is about its own cells; no window is torn apart.
TEST(VisionShare, HoldsEveryCellOnce) {
  for (const auto choice : {VisionContext::kPictures, VisionContext::kDsp, VisionContext::kAuto}) {
    for (const int64_t context : {2, 3, 5, 16}) {
      std::vector<int64_t> all;
      for (int64_t rank = 0; rank < context; ++rank) {
        const auto mine = share(kGrids, context, rank, choice);
        ASSERT_EQ(mine.held.size(), static_cast<size_t>(context));
        EXPECT_EQ(mine.held[static_cast<size_t>(rank)], mine.cells);
        EXPECT_EQ(mine.index.cu_window_seqlens.back(), 4 * static_cast<int64_t>(mine.cells.size()));
        EXPECT_EQ(mine.index.rows.size(), 4 * mine.cells.size());
        EXPECT_EQ(mine.index.window_index.size(), mine.cells.size());
        all.insert(all.end(), mine.cells.begin(), mine.cells.end());
      }
      std::sort(all.begin(), all.end());
      std::vector<int64_t> want(kCells);
      std::iota(want.begin(), want.end(), 0);
      EXPECT_EQ(all, want);
    }
  }
}

// 140 patches against 96, 24 and three times 80: the time steps of a video are pictures too.
TEST(VisionShare, PicturesAreSharedByCost) {
  const auto zero = share(kGrids, 2, 0, VisionContext::kPictures),
             one = share(kGrids, 2, 1, VisionContext::kPictures);
  EXPECT_EQ(zero.split, VisionSplit::kPictures);
  EXPECT_EQ(zero.cells.size() + one.cells.size(), static_cast<size_t>(kCells));
  EXPECT_LT(std::max(zero.cells.size(), one.cells.size()), 0.6 * kCells);
  EXPECT_TRUE(zero.rank_patches.empty());
}

// One large picture: windows of 64 patches (8 x 8) at 16 x 24 patches are six.
TEST(VisionShare, OneLargePictureIsCutByWindows) {
  const auto one = share({{1, 16, 24}}, 3, 1, VisionContext::kAuto);
  EXPECT_EQ(one.split, VisionSplit::kWindows);
  EXPECT_THAT(one.rank_patches, ElementsAre(128, 128, 128));
  EXPECT_THAT(one.index.cu_window_seqlens, ElementsAre(0, 64, 128));
  EXPECT_THAT(one.index.cu_seqlens, ElementsAre(0, 384));  // of all ranks
  EXPECT_EQ(one.cells.front(), 8);  // the third window begins at row 0, column 16
  EXPECT_EQ(one.index.rows.front(), 0);
  EXPECT_EQ(one.index.columns.front(), 16);
  EXPECT_EQ(share({{1, 16, 24}, {1, 16, 24}, {1, 16, 24}}, 3, 1, VisionContext::kAuto).split,
            VisionSplit::kPictures);
}

TEST(VisionShare, WithoutBalanceEveryRankDoesAll) {
  const auto all = share(kGrids, 4, 2, VisionContext::kAuto, BalanceVision::kNone);
  EXPECT_EQ(all.split, VisionSplit::kNone);
  EXPECT_EQ(all.cells.size(), static_cast<size_t>(kCells));
  EXPECT_TRUE(all.held.empty());
}

}  // namespace
}  // namespace triptych::qwen2_5_vl

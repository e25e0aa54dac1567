#pragma once

// Which part of a micro-batch's pictures the vision tower of one context rank works on, and where
// its features lie. Plain integers, the same on every rank.

#include <cstdint>
#include <span>
#include <vector>

#include "models/qwen2_5_vl/positions.h"
#include "parallel/options.h"

namespace triptych::qwen2_5_vl {

/// How the tower's work lies over the context ranks.
enum class VisionSplit {
  kNone,      ///< every rank does all of it
  kPictures,  ///< whole pictures and whole time steps of videos: nothing is exchanged in the tower
  kWindows,   ///< whole windows; ranks exchange heads in the blocks with full attention
};

struct VisionShare {
  VisionSplit split = VisionSplit::kNone;
  /// Cells in the hub's numbering over all media, in the order of the pixel rows.
  std::vector<int64_t> cells;
  /// Of these cells. kWindows: the cells are in window order already (window_index counts up), and
  /// cu_seqlens are the time steps of all ranks.
  VisionIndex index;
  std::vector<int64_t> rank_patches;  ///< kWindows: patches of every rank
  /// Cells of every rank's features, in their order; empty for kNone.
  std::vector<std::vector<int64_t>> held;
};

/// What `context` ranks do of the pictures and videos `grids`, and what `rank` does.
/// @param choice   auto takes pictures unless the busiest rank would then have 1.25 times the mean
///   work or more, and windows would do better.
/// @param balance  none: every rank does everything (not with windows).
VisionShare share_vision(std::span<const MediaGrid> grids, const VisionOptions& options,
                         int64_t context, int64_t rank, VisionContext choice,
                         BalanceVision balance);

}  // namespace triptych::qwen2_5_vl

#pragma once

// Host-side index work of Qwen2.5-VL: window order and attention segments of the vision tower,
// M-RoPE positions of the text. Plain integers, no libtorch, checked against the reference one by
// one. Source: transformers, modeling_qwen2_5_vl.py (get_rope_index, get_window_index).

#include <cstdint>
#include <span>
#include <vector>

#include "models/qwen2_5_vl/options.h"

namespace triptych::qwen2_5_vl {

/// One picture (t = 1) or video in the order in which its placeholders come.
struct MediaGrid {
  int64_t t = 1, h = 0, w = 0;  ///< patches
  bool video = false;
  double seconds_per_grid = 1.0;  ///< videos only

  int64_t patches() const { return t * h * w; }
};

/// Order and segments in which the vision tower works.
struct VisionIndex {
  std::vector<int64_t> window_index;       ///< [cells] old cell of each new place
  std::vector<int64_t> reverse_index;      ///< [cells] new place of each old cell
  std::vector<int64_t> cu_window_seqlens;  ///< patches, from 0; windows of the windowed blocks
  std::vector<int64_t> cu_seqlens;         ///< patches, from 0; one segment a time step
  std::vector<int64_t> rows,
      columns;  ///< [patches] position of each patch, before the windows' order
};

VisionIndex vision_index(std::span<const MediaGrid> grids, const VisionOptions& options);

/// Positions of one sample's tokens, without padding.
struct TextPositions {
  std::vector<int64_t> temporal, height, width;  ///< [n]
  int64_t delta = 0;  ///< largest position + 1 - n: what generation adds to a later token's index
};

/// @param tokens  one sample; placeholders of a medium are one run of its pad id.
/// @param grids   the sample's media in order.
/// @throws DataError when placeholders and grids do not match in number.
TextPositions text_positions(std::span<const int32_t> tokens, std::span<const MediaGrid> grids,
                             const Options& options);

}  // namespace triptych::qwen2_5_vl

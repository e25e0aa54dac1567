#include "models/qwen2_5_vl/positions.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace triptych::qwen2_5_vl {

namespace {

/// Appends the cells of one time step tile by tile; `first` is the number of its first cell.
void append_windows(VisionIndex& index, int64_t first, int64_t rows, int64_t columns, int64_t tile,
                    int64_t cell_patches) {
  for (int64_t top = 0; top < rows; top += tile) {
    for (int64_t left = 0; left < columns; left += tile) {
      const int64_t bottom = std::min(top + tile, rows), right = std::min(left + tile, columns);
      for (int64_t y = top; y < bottom; ++y) {
        for (int64_t x = left; x < right; ++x)
          index.window_index.push_back(first + y * columns + x);
      }
      index.cu_window_seqlens.push_back(index.cu_window_seqlens.back() +
                                        (bottom - top) * (right - left) * cell_patches);
    }
  }
}

}  // namespace

VisionIndex vision_index(std::span<const MediaGrid> grids, const VisionOptions& options) {
  const int64_t merge = options.spatial_merge_size;
  const int64_t tile = options.window_size / merge / options.patch_size;
  VisionIndex index;
  index.cu_seqlens = {0};
  index.cu_window_seqlens = {0};
  int64_t cells = 0;
  for (const auto& grid : grids) {
    require<DataError>(
        grid.t > 0 && grid.h > 0 && grid.w > 0 && grid.h % merge == 0 && grid.w % merge == 0,
        "vision grid (", grid.t, ", ", grid.h, ", ", grid.w,
        "): height and width must be positive multiples of ", merge);
    const int64_t rows = grid.h / merge, columns = grid.w / merge;
    for (int64_t t = 0; t < grid.t; ++t) {
      append_windows(index, cells, rows, columns, tile, options.cell_patches());
      cells += rows * columns;
      index.cu_seqlens.push_back(index.cu_seqlens.back() + grid.h * grid.w);
      for (int64_t cell = 0; cell < rows * columns; ++cell) {
        for (int64_t patch = 0; patch < merge * merge; ++patch) {
          index.rows.push_back(cell / columns * merge + patch / merge);
          index.columns.push_back(cell % columns * merge + patch % merge);
        }
      }
    }
  }
  index.reverse_index.resize(index.window_index.size());
  for (size_t place = 0; place < index.window_index.size(); ++place) {
    index.reverse_index[index.window_index[place]] = static_cast<int64_t>(place);
  }
  return index;
}

TextPositions text_positions(std::span<const int32_t> tokens, std::span<const MediaGrid> grids,
                             const Options& options) {
  TextPositions positions;
  const auto put = [&](int64_t t, int64_t y, int64_t x) {
    positions.temporal.push_back(t);
    positions.height.push_back(y);
    positions.width.push_back(x);
  };
  const int64_t merge = options.vision.spatial_merge_size;
  int64_t next = 0, largest = -1;
  size_t medium = 0;
  for (size_t i = 0; i < tokens.size();) {
    const bool image = tokens[i] == options.ids.image, video = tokens[i] == options.ids.video;
    if (!image && !video) {
      put(next, next, next);
      largest = std::max(largest, next++);
      ++i;
      continue;
    }
    require<DataError>(medium < grids.size(), "token ", i,
                       " is a placeholder, but the sample has only ", grids.size(),
                       " pictures and videos");
    const auto& grid = grids[medium];
    require<DataError>(grid.video == video, "token ", i, " stands for ",
                       video ? "a video" : "an image", ", but medium ", medium + 1, " is ",
                       grid.video ? "a video" : "an image");
    const int64_t rows = grid.h / merge, columns = grid.w / merge;
    // The product stays in float32 and is cut to an integer only after the time step is multiplied
    // in.
    const float interval = static_cast<float>(grid.seconds_per_grid) *
                           static_cast<float>(options.vision.tokens_per_second);
    int64_t count = 0;
    for (int64_t t = 0; t < grid.t; ++t) {
      const int64_t time =
          grid.video ? static_cast<int64_t>(std::trunc(static_cast<float>(t) * interval)) : 0;
      for (int64_t y = 0; y < rows; ++y) {
        for (int64_t x = 0; x < columns; ++x, ++count) {
          require<DataError>(i + count < tokens.size() && tokens[i + count] == tokens[i], "medium ",
                             medium + 1, " of ", grid.t, " x ", rows, " x ", columns,
                             " cells has only ", count, " placeholders");
          put(next + time, next + y, next + x);
          largest = std::max({largest, next + time, next + y, next + x});
        }
      }
    }
    i += count;
    require<DataError>(i >= tokens.size() || tokens[i] != tokens[i - 1], "medium ", medium + 1,
                       " of ", grid.t, " x ", rows, " x ", columns, " cells has more than ", count,
                       " placeholders");
    next = options.video_position_rule == VideoPositionRule::kMaxAll
               ? largest + 1
               : next + std::max(rows, columns);
    ++medium;
  }
  require<DataError>(medium == grids.size(), "the sample has ", grids.size(),
                     " pictures and videos, but placeholders for ", medium);
  positions.delta = largest + 1 - static_cast<int64_t>(tokens.size());
  return positions;
}

}  // namespace triptych::qwen2_5_vl

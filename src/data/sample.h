#pragma once

// What the data pipeline hands to training: plain buffers, no libtorch, so that the loader's
// threads and its tests need none. A task turns them into tensors.

#include <cstdint>
#include <string>
#include <vector>

namespace triptych {

/// Label of a token that carries no loss.
inline constexpr int64_t kIgnoreLabel = -100;

/// Size of one picture or video in patches: time steps, rows, columns.
struct Grid {
  int64_t t = 1, h = 0, w = 0;
  int64_t patches() const { return t * h * w; }
  bool operator==(const Grid&) const = default;
};

enum class MediaKind { kImage, kVideo };

/// One picture or video, ready for the vision tower.
struct MediaPatches {
  MediaKind kind = MediaKind::kImage;
  Grid grid;
  double seconds_per_grid = 1.0;  ///< video: temporal patch size / sampled frames per second
  std::vector<float> rows;        ///< [grid.patches(), patch_dim], row-major, normalised
};

/// One training sample: tokens with placeholders expanded, labels not yet shifted.
struct Sample {
  uint64_t index = 0;           ///< place in the run's stream of samples; keys everything random
  std::vector<int32_t> tokens;  ///< [n]
  std::vector<int32_t> labels;  ///< [n], a token id or kIgnoreLabel; labels[i] belongs to tokens[i]
  std::vector<MediaPatches> media;  ///< in the order of their placeholders
  std::string origin;               ///< "file:line" for messages
};

/// A row of the global batch: one sample, or several that were packed. Samples never see each
/// other.
struct Row {
  std::vector<Sample> samples;
};

/// The rows that go through the model together, joined without padding.
struct MicroBatch {
  std::vector<Row> rows;
};

}  // namespace triptych

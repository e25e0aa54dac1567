#pragma once

// Where a list of layers is cut into the pieces of a pipeline.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/options.h"
#include "parallel/schedule.h"

namespace triptych {

/// What the cut must know of one layer of a model.
struct CutLayer {
  std::string part;    ///< "vision", "text", ...: what a list of counts is about
  bool block = false;  ///< one of those repeated layers that the lists count
  double cost = 0;     ///< of a step, in any unit
};

/// The counts that a run file gives for one part of the model.
struct PartSplit {
  std::string part;
  std::string option;  ///< its name in messages: "parallel.text_layers"
  LayerSplit layers;
};

/// Layers [begin, end) of a model's list.
struct LayerRange {
  int64_t begin = 0, end = 0;
  bool holds(int64_t layer) const { return layer >= begin && layer < end; }
  bool empty() const { return begin == end; }
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

/// The cut: virtual stage `s` (chunk s / stages of rank s % stages) holds the layers
/// [bounds[s], bounds[s + 1]).
struct StageCut {
  int64_t stages = 1, chunks = 1;
  std::vector<int64_t> bounds;

  /// All layers on one rank.
  static StageCut whole(int64_t layers) { return {1, 1, {0, layers}}; }
  LayerRange range(int64_t rank, int64_t chunk) const {
    const auto s = static_cast<size_t>(chunk * stages + rank);
    return {bounds[s], bounds[s + 1]};
  }
  /// The virtual stage that holds a layer.
  int64_t stage_of(int64_t layer) const;
  bool holds(int64_t rank, int64_t layer) const { return stage_of(layer) % stages == rank; }
};

/// Cuts a list of layers: as the counts say, or, where they are "auto", so that the dearest piece
/// is as cheap as it can be (and then so that the pieces are alike). A layer that is no block goes
/// with the next block, so that an embedding stands with the first layer behind it; those after the
/// last block go to the last piece.
/// Adds to `problems` every rule that is broken (M11, M12) with its arithmetic; the result is
/// only of use when there is none.
StageCut cut_layers(std::span<const CutLayer> layers, const PipelineShape& shape,
                    std::span<const PartSplit> splits, Problems& problems);

}  // namespace triptych

#pragma once

// How the video tokens of packed samples lie over context ranks while layers attend by axes: by
// frames (attention within a frame needs nothing of other ranks), or, after a switch of the split
// dimension, by places (attention along time needs nothing then).

#include <cstdint>
#include <vector>

namespace triptych::video_transformer {

struct Grid {
  int64_t frames = 1, places = 1;
};

class GridSplit {
 public:
  GridSplit(std::vector<Grid> grids, int64_t ranks) : grids_(std::move(grids)), ranks_(ranks) {}

  const std::vector<Grid>& grids() const { return grids_; }
  /// Frames (places) of one sample on each rank; may be 0.
  std::vector<int64_t> frames(const Grid& grid) const { return parts(grid.frames); }
  std::vector<int64_t> places(const Grid& grid) const { return parts(grid.places); }

  /// Video tokens, numbered over all samples, that a rank holds by frames: frame by frame; and by
  /// places: place by place.
  std::vector<int64_t> tokens_by_frames(int64_t rank) const;
  std::vector<int64_t> tokens_by_places(int64_t rank) const;

  /// Segment bounds of what a rank holds.
  std::vector<int64_t> frame_bounds(int64_t rank) const;
  std::vector<int64_t> place_bounds(int64_t rank) const;

 private:
  int64_t begin(int64_t size, int64_t rank) const { return size * rank / ranks_; }
  std::vector<int64_t> parts(int64_t size) const {
    std::vector<int64_t> sizes;
    for (int64_t r = 0; r < ranks_; ++r) sizes.push_back(begin(size, r + 1) - begin(size, r));
    return sizes;
  }

  std::vector<Grid> grids_;
  int64_t ranks_;
};

inline std::vector<int64_t> GridSplit::tokens_by_frames(int64_t rank) const {
  std::vector<int64_t> tokens;
  int64_t first = 0;
  for (const auto& g : grids_) {
    for (int64_t f = begin(g.frames, rank); f < begin(g.frames, rank + 1); ++f)
      for (int64_t p = 0; p < g.places; ++p) tokens.push_back(first + f * g.places + p);
    first += g.frames * g.places;
  }
  return tokens;
}

inline std::vector<int64_t> GridSplit::tokens_by_places(int64_t rank) const {
  std::vector<int64_t> tokens;
  int64_t first = 0;
  for (const auto& g : grids_) {
    for (int64_t p = begin(g.places, rank); p < begin(g.places, rank + 1); ++p)
      for (int64_t f = 0; f < g.frames; ++f) tokens.push_back(first + f * g.places + p);
    first += g.frames * g.places;
  }
  return tokens;
}

inline std::vector<int64_t> GridSplit::frame_bounds(int64_t rank) const {
  std::vector<int64_t> bounds{0};
  for (const auto& g : grids_)
    for (int64_t f = begin(g.frames, rank); f < begin(g.frames, rank + 1); ++f)
      bounds.push_back(bounds.back() + g.places);
  return bounds;
}

inline std::vector<int64_t> GridSplit::place_bounds(int64_t rank) const {
  std::vector<int64_t> bounds{0};
  for (const auto& g : grids_)
    for (int64_t p = begin(g.places, rank); p < begin(g.places, rank + 1); ++p)
      bounds.push_back(bounds.back() + g.frames);
  return bounds;
}

}  // namespace triptych::video_transformer

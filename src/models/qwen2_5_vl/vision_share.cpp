#include "models/qwen2_5_vl/vision_share.h"

#include <algorithm>
#include <numeric>

#include "parallel/work_share.h"

namespace triptych::qwen2_5_vl {

namespace {

/// Beyond this imbalance of whole pictures, windows are looked at.
constexpr double kUneven = 1.25;

/// Flop of all blocks for a patch that sees `seen` patches in full attention.
double patch_cost(const VisionOptions& o, double seen) {
  const auto E = static_cast<double>(o.hidden_size), I = static_cast<double>(o.intermediate_size);
  const double window = static_cast<double>(o.window_size) / static_cast<double>(o.patch_size);
  const auto full = static_cast<double>(o.fullatt_block_indexes.size()),
             windowed = static_cast<double>(o.depth) - full;
  return static_cast<double>(o.depth) * 2 * (4 * E * E + 3 * E * I) +
         4 * E * (full * seen + windowed * std::min(seen, window * window));
}

/// One time step: the tower never looks beyond it.
struct Step {
  MediaGrid grid;
  int64_t first_cell = 0, cells = 0;
  double cost = 0;
};

std::vector<Step> steps_of(std::span<const MediaGrid> grids, const VisionOptions& options) {
  std::vector<Step> steps;
  int64_t cell = 0;
  for (auto grid : grids) {
    const int64_t count = grid.t;
    grid.t = 1;
    const int64_t patches = grid.h * grid.w, cells = patches / options.cell_patches();
    const auto n = static_cast<double>(patches);
    for (int64_t t = 0; t < count; ++t, cell += cells)
      steps.push_back({grid, cell, cells, n * patch_cost(options, n)});
  }
  return steps;
}

VisionShare by_pictures(const std::vector<Step>& steps, std::span<const int64_t> rank_of_step,
                        const VisionOptions& options, int64_t context, int64_t rank) {
  VisionShare share{.split = VisionSplit::kPictures, .cells = {}, .index = {}};
  share.held.resize(static_cast<size_t>(context));
  std::vector<MediaGrid> mine;
  for (size_t i = 0; i < steps.size(); ++i) {
    auto& held = share.held[static_cast<size_t>(rank_of_step[i])];
    for (int64_t c = 0; c < steps[i].cells; ++c) held.push_back(steps[i].first_cell + c);
    if (rank_of_step[i] == rank) mine.push_back(steps[i].grid);
  }
  share.cells = share.held[static_cast<size_t>(rank)];
  share.index = vision_index(mine, options);
  return share;
}

struct WindowCut {
  std::vector<int64_t> bounds;  ///< windows, [ranks + 1]
  double imbalance = 1;
};

/// Windows cost by their patches: in full attention it is heads that are shared out.
WindowCut cut_windows(const VisionIndex& all, int64_t context) {
  std::vector<double> costs;
  for (size_t w = 1; w < all.cu_window_seqlens.size(); ++w)
    costs.push_back(static_cast<double>(all.cu_window_seqlens[w] - all.cu_window_seqlens[w - 1]));
  WindowCut cut{.bounds = cut_by_cost(costs, context)};
  std::vector<int64_t> rank_of_window;
  for (int64_t r = 0; r < context; ++r)
    rank_of_window.resize(static_cast<size_t>(cut.bounds[static_cast<size_t>(r) + 1]), r);
  cut.imbalance = imbalance(costs, rank_of_window, context);
  return cut;
}

VisionShare by_windows(const VisionIndex& all, const WindowCut& cut, const VisionOptions& options,
                       int64_t context, int64_t rank) {
  const int64_t M = options.cell_patches();
  const auto begin_of = [&](int64_t r) {
    return all.cu_window_seqlens[static_cast<size_t>(cut.bounds[static_cast<size_t>(r)])];
  };
  VisionShare share{.split = VisionSplit::kWindows, .cells = {}, .index = {}};
  for (int64_t r = 0; r < context; ++r) {
    const auto first = all.window_index.begin() + begin_of(r) / M,
               last = all.window_index.begin() + begin_of(r + 1) / M;
    share.held.emplace_back(first, last);
    share.rank_patches.push_back((last - first) * M);
  }
  share.cells = share.held[static_cast<size_t>(rank)];
  auto& index = share.index;
  index.window_index.resize(share.cells.size());
  std::iota(index.window_index.begin(), index.window_index.end(), int64_t{0});
  index.reverse_index = index.window_index;
  index.cu_seqlens = all.cu_seqlens;
  for (auto w = cut.bounds[static_cast<size_t>(rank)];
       w <= cut.bounds[static_cast<size_t>(rank) + 1]; ++w)
    index.cu_window_seqlens.push_back(all.cu_window_seqlens[static_cast<size_t>(w)] -
                                      begin_of(rank));
  for (const auto cell : share.cells) {
    for (int64_t patch = cell * M; patch < (cell + 1) * M; ++patch) {
      index.rows.push_back(all.rows[static_cast<size_t>(patch)]);
      index.columns.push_back(all.columns[static_cast<size_t>(patch)]);
    }
  }
  return share;
}

}  // namespace

VisionShare share_vision(std::span<const MediaGrid> grids, const VisionOptions& options,
                         int64_t context, int64_t rank, VisionContext choice,
                         BalanceVision balance) {
  const bool alone =
      context == 1 || (balance == BalanceVision::kNone && choice != VisionContext::kDsp);
  if (alone) {
    VisionShare share{.cells = {}, .index = vision_index(grids, options)};
    share.cells.resize(share.index.window_index.size());
    std::iota(share.cells.begin(), share.cells.end(), int64_t{0});
    return share;
  }
  const auto steps = steps_of(grids, options);
  std::vector<double> costs;
  for (const auto& step : steps) costs.push_back(step.cost);
  const auto rank_of_step = share_by_cost(costs, context);
  const double uneven = imbalance(costs, rank_of_step, context);
  if (choice == VisionContext::kPictures || (choice == VisionContext::kAuto && uneven < kUneven))
    return by_pictures(steps, rank_of_step, options, context, rank);
  const auto all = vision_index(grids, options);
  const auto cut = cut_windows(all, context);
  if (choice == VisionContext::kAuto && cut.imbalance >= uneven)
    return by_pictures(steps, rank_of_step, options, context, rank);
  return by_windows(all, cut, options, context, rank);
}

}  // namespace triptych::qwen2_5_vl

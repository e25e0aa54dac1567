#include "parallel/stage_cut.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "base/format.h"

namespace triptych {

int64_t StageCut::stage_of(int64_t layer) const {
  const auto it = std::upper_bound(bounds.begin(), bounds.end(), layer);
  require(it != bounds.begin() && it != bounds.end(), "pipeline: layer ", layer,
          " is not one of the model's");
  return it - bounds.begin() - 1;
}

namespace {

/// Layers that are never parted: a block with the other layers before it.
struct Unit {
  LayerRange layers;
  std::string part;  ///< of its block; empty: no block
  double cost = 0;
};

std::vector<Unit> units_of(std::span<const CutLayer> layers) {
  std::vector<Unit> units;
  Unit open;
  for (size_t i = 0; i < layers.size(); ++i) {
    open.cost += layers[i].cost;
    open.layers.end = static_cast<int64_t>(i) + 1;
    if (!layers[i].block && i + 1 < layers.size()) continue;
    if (layers[i].block) open.part = layers[i].part;
    const int64_t end = open.layers.end;
    units.push_back(std::move(open));
    open = {.layers = {end, end}, .part = "", .cost = 0};
  }
  return units;
}

/// The counts of one part by virtual stage; nothing when it is "auto".
struct Counts {
  std::string part, option;
  std::vector<int64_t> of_stage;
};

std::string rows(int64_t chunks, int64_t stages) {
  return chunks == 1 ? fmt::format("a list of {}", stages)
                     : fmt::format("{} lists of {}", chunks, stages);
}

std::optional<Counts> read_counts(const PartSplit& split, const PipelineShape& shape,
                                  std::span<const CutLayer> layers, Problems& problems) {
  if (std::holds_alternative<Auto>(split.layers)) return std::nullopt;
  std::vector<std::vector<int64_t>> lists;
  if (const auto* one = std::get_if<std::vector<int64_t>>(&split.layers)) {
    lists = {*one};
  } else {
    lists = std::get<std::vector<std::vector<int64_t>>>(split.layers);
  }
  const bool fits = static_cast<int64_t>(lists.size()) == shape.chunks &&
                    std::all_of(lists.begin(), lists.end(), [&](const auto& list) {
                      return static_cast<int64_t>(list.size()) == shape.stages;
                    });
  std::string seen;
  for (const auto& list : lists) seen += fmt::format("{}{}", seen.empty() ? "" : ", ", list.size());
  problems.check(fits, split.option, " must be ", rows(shape.chunks, shape.stages),
                 " (parallel.pipeline = ", shape.stages, ", parallel.virtual = ", shape.chunks,
                 "), got ", lists.size() == 1 ? "a list of " : "lists of ", seen);
  Counts counts{split.part, split.option, {}};
  for (const auto& list : lists)
    counts.of_stage.insert(counts.of_stage.end(), list.begin(), list.end());
  const auto sum = std::accumulate(counts.of_stage.begin(), counts.of_stage.end(), int64_t{0});
  const auto has = std::count_if(layers.begin(), layers.end(), [&](const auto& layer) {
    return layer.block && layer.part == split.part;
  });
  problems.check(sum == has, split.option, " sums to ", sum, ", the model has ", has);
  if (!fits || sum != has) return std::nullopt;
  return counts;
}

std::string place(int64_t stage, const PipelineShape& shape) {
  return shape.chunks == 1
             ? fmt::format("stage {}", stage)
             : fmt::format("stage {}, chunk {}", stage % shape.stages, stage / shape.stages);
}

/// Layers keep their order: a part that comes first in the model may not stand behind a later one.
void check_order(const std::vector<Counts>& counts, std::span<const CutLayer> layers,
                 const PipelineShape& shape, Problems& problems) {
  const auto first_layer = [&](const Counts& c) {
    return std::find_if(layers.begin(), layers.end(),
                        [&](const auto& l) { return l.block && l.part == c.part; });
  };
  const auto holds = [](int64_t n) { return n > 0; };
  for (const auto& before : counts) {
    for (const auto& after : counts) {
      if (first_layer(before) >= first_layer(after)) continue;
      const auto last = std::find_if(before.of_stage.rbegin(), before.of_stage.rend(), holds);
      const auto first = std::find_if(after.of_stage.begin(), after.of_stage.end(), holds);
      if (last == before.of_stage.rend() || first == after.of_stage.end()) continue;
      const auto at = static_cast<int64_t>(before.of_stage.rend() - last) - 1;
      const auto than = static_cast<int64_t>(first - after.of_stage.begin());
      problems.check(at <= than, before.option, " puts ", *last, " layers on ", place(at, shape),
                     ", behind the ", *first, " that ", after.option, " puts on ",
                     place(than, shape), "; the ", before.part, " layers come first");
    }
  }
}

/// How good a cut is: the dearest piece, then how unlike they are.
struct Score {
  double dearest = std::numeric_limits<double>::infinity(), squares = 0;
  friend auto operator<=>(const Score&, const Score&) = default;
};

/// The best bounds, in units, under the counts; empty when there are none. Dynamic programming over
/// contiguous cuts.
std::vector<size_t> best_bounds(const std::vector<Unit>& units, const PipelineShape& shape,
                                const std::vector<Counts>& counts) {
  const size_t U = units.size(), S = static_cast<size_t>(shape.virtual_stages());
  std::vector<std::vector<Score>> best(S + 1, std::vector<Score>(U + 1));
  std::vector<std::vector<size_t>> from(S + 1, std::vector<size_t>(U + 1));
  best[0][0] = {0, 0};
  for (size_t s = 0; s < S; ++s) {
    for (size_t begin = 0; begin <= U; ++begin) {
      const auto& before = best[s][begin];
      if (before.dearest == Score().dearest) continue;
      std::vector<int64_t> left;
      for (const auto& c : counts) left.push_back(c.of_stage[s]);
      double cost = 0;
      for (size_t end = begin;; ++end) {
        const bool exact = std::all_of(left.begin(), left.end(), [](int64_t n) { return n == 0; });
        const bool last_is_empty = s + 1 == S && begin == U;  // the head stands on the last one
        if (exact && !last_is_empty) {
          const Score score{std::max(before.dearest, cost), before.squares + cost * cost};
          if (score < best[s + 1][end]) {
            best[s + 1][end] = score;
            from[s + 1][end] = begin;
          }
        }
        if (end == U) break;
        cost += units[end].cost;
        bool over = false;
        for (size_t i = 0; i < counts.size(); ++i) {
          if (counts[i].part == units[end].part) over |= --left[i] < 0;
        }
        if (over) break;
      }
    }
  }
  if (best[S][U].dearest == Score().dearest) return {};
  std::vector<size_t> bounds(S + 1, U);
  for (size_t s = S; s > 0; --s) bounds[s - 1] = from[s][bounds[s]];
  return bounds;
}

}  // namespace

StageCut cut_layers(std::span<const CutLayer> layers, const PipelineShape& shape,
                    std::span<const PartSplit> splits, Problems& problems) {
  const auto before = problems.messages().size();
  std::vector<Counts> counts;
  for (const auto& split : splits) {
    if (auto read = read_counts(split, shape, layers, problems)) counts.push_back(std::move(*read));
  }
  check_order(counts, layers, shape, problems);

  StageCut cut{.stages = shape.stages, .chunks = shape.chunks, .bounds = {}};
  if (problems.messages().size() > before) return cut;
  const auto units = units_of(layers);
  const auto bounds = best_bounds(units, shape, counts);
  if (bounds.empty()) {
    problems.add("parallel.pipeline * parallel.virtual = ", shape.stages, " * ", shape.chunks,
                 " = ", shape.virtual_stages(),
                 ": the layers cannot be cut so that every list of layers holds");
    return cut;
  }
  for (const auto b : bounds)
    cut.bounds.push_back(b == units.size() ? static_cast<int64_t>(layers.size())
                                           : units[b].layers.begin);
  for (int64_t rank = 0; rank < shape.stages; ++rank) {
    bool any = false;
    for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) any |= !cut.range(rank, chunk).empty();
    problems.check(any, "parallel.pipeline = ", shape.stages, ": stage ", rank,
                   " holds no layer, embedding or head; the model has ", units.size(),
                   " pieces that can be parted");
  }
  return cut;
}

}  // namespace triptych

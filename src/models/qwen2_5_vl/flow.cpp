// From samples to the flow of the first layer.

#include <ATen/ops/arange.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/flow_parts.h"
#include "models/qwen2_5_vl/model.h"
#include "models/qwen2_5_vl/vision_share.h"
#include "parallel/group.h"
#include "parallel/sequence_split.h"

namespace triptych::qwen2_5_vl {

namespace {

/// The part of a packed row that this context rank holds.
struct ContextShare {
  std::vector<int64_t> rows;                 ///< own tokens
  std::vector<int64_t> local_row;            ///< of every token, -1 elsewhere
  std::vector<std::vector<int64_t>> needed;  ///< cells that stand among each rank's tokens
};

ContextShare share_tokens(const TokenLists& all, const ModelGroups& groups) {
  const int64_t R = groups.ring->size(), U = groups.ulysses->size();
  const SequenceSplit split(all.bounds, R, U, /*zigzag=*/true);
  ContextShare share;
  for (int64_t rank = 0; rank < groups.context_size(); ++rank) {  // Ulysses inside the ring
    auto& cells = share.needed.emplace_back();
    auto rows = split.rows(rank / U, rank % U);
    for (const auto row : rows) {
      const auto id = all.ids[static_cast<size_t>(row)];
      if (TokenLists::is_placeholder(id)) cells.push_back(TokenLists::cell(id));
    }
    if (rank == groups.context_rank()) share.rows = std::move(rows);
  }
  share.local_row.assign(all.ids.size(), -1);
  for (size_t i = 0; i < share.rows.size(); ++i)
    share.local_row[static_cast<size_t>(share.rows[i])] = static_cast<int64_t>(i);
  return share;
}

}  // namespace

Flow make_flow(const Options& options, std::span<const SampleView> samples,
               const FlowSettings& settings) {
  const auto& groups = settings.groups;
  const bool split = groups.context_size() > 1;
  require(!split || !(settings.all_logits || settings.last_logits),
          "logits are not gathered over context ranks");
  Flow flow;
  std::vector<MediaGrid> grids;
  for (const auto& sample : samples) {
    for (const auto& medium : sample.media) grids.push_back(medium.grid);
  }
  TokenLists tokens;
  size_t grid = 0;
  int64_t cells = 0;
  for (const auto& sample : samples) {
    tokens.append(sample, std::span(grids).subspan(grid, sample.media.size()), cells, options,
                  settings);
    grid += sample.media.size();
  }
  const auto count = static_cast<int64_t>(tokens.ids.size());
  auto bounds = tokens.bounds;
  ContextShare share;
  if (split) {
    share = share_tokens(tokens, groups);
    tokens.keep(share.rows);
  }

  std::vector<int64_t> feature_places;
  if (groups.shares_pictures_over_data()) {
    if (!split) {  // all cells stand among this rank's tokens
      auto& own_cells = share.needed.emplace_back(static_cast<size_t>(cells));
      std::iota(own_cells.begin(), own_cells.end(), int64_t{0});
    }
    feature_places =
        add_shared_pictures(flow, options, Media(samples, options.vision), share.needed, settings);
  } else if (!grids.empty()) {
    auto vision = share_vision(grids, options.vision, groups.context_size(), groups.context_rank(),
                               groups.vision_context, groups.balance_vision);
    if (vision.split != VisionSplit::kNone)
      feature_places =
          add_route(flow, vision, share.needed, cells, groups.context_rank(), settings);
    if (settings.vision)
      add_vision(flow, options.vision, Media(samples, options.vision), std::move(vision), settings);
  }
  if (const int64_t more = padding(static_cast<int64_t>(tokens.ids.size()), groups); more > 0) {
    tokens.pad(more);
    if (!split) bounds.push_back(count + more);  // a segment of its own
  }

  add_words(flow, tokens, feature_places, settings.device);
  const auto [cos, sin] = text_rotary(options.text, tokens.positions, settings);
  flow.set(field::kSampleBounds, host_tensor(bounds));
  flow.set(field::kCos, cos);
  flow.set(field::kSin, sin);
  if (settings.dropout)
    flow.set(field::kDropoutKeys, index_tensor(host_tensor(tokens.dropout_keys), settings.device));
  if (std::any_of(samples.begin(), samples.end(),
                  [](const auto& s) { return !s.labels.empty(); })) {
    add_labels(flow, samples, share.local_row, settings.device);
  }
  if (settings.all_logits)
    flow.set(field::kLogitRows, index_tensor(at::arange(count), settings.device));
  if (settings.last_logits) {
    std::vector<int64_t> last(tokens.bounds.begin() + 1, tokens.bounds.end());
    for (auto& row : last) --row;
    flow.set(field::kLogitRows, index_tensor(host_tensor(last), settings.device));
  }
  return flow;
}

Flow next_token_flow(const Options& options, int32_t token, int64_t position,
                     const FlowSettings& settings) {
  TokenLists one;
  one.ids = {token};
  one.positions = {.temporal = {position}, .height = {position}, .width = {position}};
  Flow flow;
  add_words(flow, one, {}, settings.device);
  const auto [cos, sin] = text_rotary(options.text, one.positions, settings);
  flow.set(field::kSampleBounds, host_tensor({0, 1}));
  flow.set(field::kCos, cos);
  flow.set(field::kSin, sin);
  flow.set(field::kLogitRows, host_tensor({0}).to(settings.device));
  return flow;
}

}  // namespace triptych::qwen2_5_vl

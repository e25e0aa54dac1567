// From samples to the flow of the first layer.
//
// P patches   F values of a patch   T tokens of all samples   K head dim   C cells

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/random.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/model.h"
#include "models/qwen2_5_vl/vision_share.h"
#include "parallel/group.h"
#include "parallel/sequence_split.h"
#include "parallel/work_share.h"

namespace triptych::qwen2_5_vl {

namespace {

at::Tensor host_tensor(const std::vector<int64_t>& values) {
  auto result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

/// inv_freq[i] = theta^(-2i / dim) in fp32, in the reference's order of operations.
at::Tensor inverse_frequencies(double theta, int64_t dim) {
  const auto exponents = at::arange(0, dim, 2, at::kFloat) / static_cast<double>(dim);
  return at::pow(theta, exponents).reciprocal();
}

at::Tensor angles(const std::vector<int64_t>& positions, const at::Tensor& inv_freq) {
  return host_tensor(positions).to(at::kFloat).unsqueeze(1) * inv_freq.unsqueeze(0);
}

/// The key of a token's (or patch's) dropout masks.
int64_t token_key(const FlowSettings::DropoutKey& key, uint64_t place, uint64_t sample) {
  const RandomKey random{key.seed ^ (key.step * 0x9E3779B97F4A7C15ULL), RandomStream::kDropout};
  const auto bits = philox(random, place, sample);
  return static_cast<int64_t>(uint64_t{bits[0]} | uint64_t{bits[1]} << 32);
}

/// Where the cells of each picture or video of a micro-batch come from.
class Media {
 public:
  Media(std::span<const SampleView> samples, const VisionOptions& options)
      : M_(options.cell_patches()), F_(options.patch_dim()) {
    for (const auto& sample : samples) {
      int64_t patches = 0;  // of the sample
      for (const auto& medium : sample.media) {
        require(static_cast<int64_t>(medium.rows.size()) == medium.grid.patches() * F_, "grid ",
                medium.grid.t, " x ", medium.grid.h, " x ", medium.grid.w, " needs ", F_,
                " values a patch, got ", medium.rows.size(), " values");
        list_.push_back({medium.rows, sample.index, patches, cells_});
        patches += medium.grid.patches();
        cells_ += medium.grid.patches() / M_;
      }
    }
  }

  int64_t cells() const { return cells_; }

  /// Pixels of these cells [P, F], in their order; zeros behind them, up to P patches.
  at::Tensor pixels(const std::vector<int64_t>& cells, int64_t P) const {
    auto pixels_PF = at::empty({P, F_}, at::kFloat);
    auto* out = pixels_PF.mutable_data_ptr<float>();
    auto* const end = out + pixels_PF.numel();
    for (size_t i = 0; i < cells.size();) {
      const auto& medium = of_cell(cells[i]);
      size_t next = i + 1;  // neighbours of one medium are copied in one go
      while (next < cells.size() && cells[next] == cells[next - 1] + 1 &&
             &of_cell(cells[next]) == &medium)
        ++next;
      const auto* from = medium.rows.data() + (cells[i] - medium.first_cell) * M_ * F_;
      out = std::copy(from, from + static_cast<int64_t>(next - i) * M_ * F_, out);
      i = next;
    }
    std::fill(out, end, 0.0F);
    return pixels_PF;
  }

  /// Keys of adapter dropout of these cells' patches: of the sample, and of the patch's place among
  /// the sample's; zeros behind them, up to P patches.
  at::Tensor dropout_keys(const std::vector<int64_t>& cells, int64_t P,
                          const FlowSettings::DropoutKey& key) const {
    auto keys = at::zeros({P}, at::kLong);
    auto* out = keys.mutable_data_ptr<int64_t>();
    for (const auto cell : cells) {
      const auto& medium = of_cell(cell);
      const int64_t first = medium.first_patch + (cell - medium.first_cell) * M_;
      for (int64_t i = 0; i < M_; ++i) {
        *out++ =
            token_key(key, static_cast<uint64_t>(first + i) | (uint64_t{1} << 63), medium.sample);
      }
    }
    return keys;
  }

 private:
  struct Medium {
    std::span<const float> rows;
    uint64_t sample;
    int64_t first_patch, first_cell;  ///< in the sample; in the micro-batch
  };
  const Medium& of_cell(int64_t cell) const {
    const auto after = std::upper_bound(list_.begin(), list_.end(), cell,
                                        [](int64_t c, const auto& m) { return c < m.first_cell; });
    return *(after - 1);
  }

  int64_t M_, F_, cells_ = 0;
  std::vector<Medium> list_;
};

/// How many tokens (or cells) a sequence needs behind `count`, so that tensor ranks share it
/// evenly.
int64_t padding(int64_t count, const ModelGroups& groups) {
  if (!groups.split_tokens()) return 0;
  const int64_t ranks = groups.tensor_size();
  return (ranks - count % ranks) % ranks;
}

/// Adds cells at the end, in a window and a frame of their own; no feature is taken from them.
void pad_cells(VisionShare& share, int64_t M, const ModelGroups& groups) {
  auto& index = share.index;
  const auto cells = static_cast<int64_t>(index.window_index.size());
  const int64_t more = padding(cells, groups);
  if (more == 0) return;
  for (int64_t c = cells; c < cells + more; ++c) index.window_index.push_back(c);
  index.cu_window_seqlens.push_back((cells + more) * M);
  // where ranks exchange heads, padding stays out of it
  if (share.split != VisionSplit::kWindows) index.cu_seqlens.push_back((cells + more) * M);
  for (auto* positions : {&index.rows, &index.columns})
    positions->resize(static_cast<size_t>((cells + more) * M), 0);
}

void add_vision(Flow& flow, const VisionOptions& options, const Media& media, VisionShare share,
                const FlowSettings& settings) {
  const int64_t M = options.cell_patches();
  pad_cells(share, M, settings.groups);
  const auto& index = share.index;
  const auto P = static_cast<int64_t>(index.rows.size());
  if (settings.pixels)
    flow.set(field::kPixels, media.pixels(share.cells, P).to(settings.device, settings.dtype));

  // Half of the head dim turns with the row, half with the column; the tables follow the windows'
  // order.
  const auto inv_freq = inverse_frequencies(options.rope_theta, options.head_dim() / 2);
  const auto half = at::cat({angles(index.rows, inv_freq), angles(index.columns, inv_freq)}, 1);
  const auto window_index = host_tensor(index.window_index);
  const auto in_windows = [&](const at::Tensor& x) {  // [P, n]
    return x.reshape({P / M, M * x.size(1)}).index_select(0, window_index).reshape(x.sizes());
  };
  const auto ordered = in_windows(half);
  const auto angles_PK = at::cat({ordered, ordered}, 1);
  flow.set(field::kVisionCos, at::cos(angles_PK).to(settings.device));
  flow.set(field::kVisionSin, at::sin(angles_PK).to(settings.device));
  flow.set(field::kWindowIndex, window_index.to(settings.device));
  flow.set(field::kReverseIndex, host_tensor(index.reverse_index).to(settings.device));
  flow.set(field::kWindowBounds, host_tensor(index.cu_window_seqlens));
  flow.set(field::kFrameBounds, host_tensor(index.cu_seqlens));
  if (share.split == VisionSplit::kWindows)
    flow.set(field::kRankPatches, host_tensor(share.rank_patches));

  if (settings.dropout) {
    const auto keys = media.dropout_keys(share.cells, P, *settings.dropout);
    flow.set(field::kVisionDropoutKeys,
             in_windows(keys.unsqueeze(1)).squeeze(1).to(settings.device));
  }
}

/// What is known of each token, of the whole packed row or, after `keep`, of some of it.
struct TokenLists {
  std::vector<int64_t> ids;  ///< a word's, or for the placeholder of cell c: -1 - c
  TextPositions positions;
  std::vector<int64_t> dropout_keys;  ///< only with dropout
  std::vector<int64_t> bounds{0};     ///< of the samples of the whole row

  static bool is_placeholder(int64_t id) { return id < 0; }
  static int64_t cell(int64_t id) { return -1 - id; }

  void append(const SampleView& sample, std::span<const MediaGrid> grids, int64_t& cells,
              const Options& options, const FlowSettings& settings);
  void keep(const std::vector<int64_t>& rows);
  /// Adds tokens at the end from which nothing is learned.
  void pad(int64_t count);
};

template <class Values>
void append_all(std::vector<int64_t>& to, const Values& values) {
  to.insert(to.end(), values.begin(), values.end());
}

void TokenLists::append(const SampleView& sample, std::span<const MediaGrid> grids, int64_t& cells,
                        const Options& options, const FlowSettings& settings) {
  const auto here = text_positions(sample.tokens, grids, options);
  append_all(positions.temporal, here.temporal);
  append_all(positions.height, here.height);
  append_all(positions.width, here.width);
  for (const auto token : sample.tokens) {
    require<DataError>(token >= 0 && token < options.text.vocab_size, "token ", token,
                       " is outside the vocabulary of ", options.text.vocab_size,
                       "; do tokenizer and model belong together?");
    const bool placeholder = token == options.ids.image || token == options.ids.video;
    ids.push_back(placeholder ? -1 - cells++ : token);
  }
  if (settings.dropout) {
    for (size_t i = 0; i < sample.tokens.size(); ++i)
      dropout_keys.push_back(token_key(*settings.dropout, i, sample.index));
  }
  bounds.push_back(bounds.back() + static_cast<int64_t>(sample.tokens.size()));
}

void TokenLists::keep(const std::vector<int64_t>& rows) {
  const auto select = [&](std::vector<int64_t>& list) {
    if (list.empty()) return;
    std::vector<int64_t> kept;
    for (const auto row : rows) kept.push_back(list[static_cast<size_t>(row)]);
    list = std::move(kept);
  };
  for (auto* list : {&ids, &positions.temporal, &positions.height, &positions.width, &dropout_keys})
    select(*list);
}

void TokenLists::pad(int64_t count) {
  const auto size = ids.size() + static_cast<size_t>(count);
  ids.resize(size, 0);  // any word
  for (auto* plane : {&positions.temporal, &positions.height, &positions.width})
    plane->resize(size, 0);
  if (!dropout_keys.empty()) dropout_keys.resize(size, 0);
}

/// Ids of words, and the row of each token in [words; features].
/// @param places  row of the feature of each placeholder, in order; empty: that of its cell.
void add_words(Flow& flow, const TokenLists& tokens, const std::vector<int64_t>& places,
               const at::Device& device) {
  std::vector<int64_t> words, order;
  for (const auto id : tokens.ids) {
    if (!TokenLists::is_placeholder(id)) words.push_back(id);
  }
  size_t placeholders = 0;
  int64_t word = 0;
  for (const auto id : tokens.ids) {
    if (!TokenLists::is_placeholder(id)) {
      order.push_back(word++);
    } else {
      const auto feature = places.empty() ? TokenLists::cell(id) : places[placeholders++];
      order.push_back(static_cast<int64_t>(words.size()) + feature);
    }
  }
  flow.set(field::kPlainIds, host_tensor(words).to(device));
  flow.set(field::kOrder, host_tensor(order).to(device));
}

/// @param local_row  of every token of the packed row on this rank, -1 elsewhere; empty: all here.
void add_labels(Flow& flow, std::span<const SampleView> samples,
                const std::vector<int64_t>& local_row, const at::Device& device) {
  std::vector<int64_t> rows, ids;
  std::vector<float> weights;
  int64_t first = 0;
  for (const auto& sample : samples) {
    require(sample.labels.empty() || sample.labels.size() == sample.tokens.size(), "sample ",
            sample.index, ": ", sample.labels.size(), " labels for ", sample.tokens.size(),
            " tokens");
    // The token before a label predicts it; a sample's first label has none before it.
    for (size_t i = 1; i < sample.labels.size(); ++i) {
      const auto row = first + static_cast<int64_t>(i) - 1;
      const auto here = local_row.empty() ? row : local_row[static_cast<size_t>(row)];
      if (sample.labels[i] < 0 || here < 0) continue;
      rows.push_back(here);
      ids.push_back(sample.labels[i]);
      weights.push_back(static_cast<float>(sample.loss_weight));
    }
    first += static_cast<int64_t>(sample.tokens.size());
  }
  auto weights_N = at::empty({static_cast<int64_t>(weights.size())}, at::kFloat);
  std::copy(weights.begin(), weights.end(), weights_N.mutable_data_ptr<float>());
  flow.set(field::kLabelRows, host_tensor(rows).to(device));
  flow.set(field::kLabels, host_tensor(ids).to(device));
  flow.set(field::kLabelWeights, weights_N.to(device));
}

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

/// How features reach the ranks whose tokens they are. Returns the row of each own placeholder's.
std::vector<int64_t> add_route(Flow& flow, const VisionShare& vision, const ContextShare& share,
                               int64_t cells, const FlowSettings& settings) {
  const auto plan = plan_route(vision.held, share.needed, cells, settings.groups.context_rank());
  flow.set(field::kRouteRows, host_tensor(plan.rows).to(settings.device));
  flow.set(field::kRouteSend, host_tensor(plan.send));
  flow.set(field::kRouteReceive, host_tensor(plan.receive));
  return plan.arrival;
}

}  // namespace

int64_t count_labels(std::span<const int32_t> labels) {
  return labels.empty() ? 0 : std::count_if(labels.begin() + 1, labels.end(), [](int32_t label) {
    return label >= 0;
  });
}

std::pair<at::Tensor, at::Tensor> text_rotary(const TextOptions& options,
                                              const TextPositions& positions,
                                              const FlowSettings& settings) {
  const auto inv_freq = inverse_frequencies(options.rope_theta, options.head_dim());
  // The first section of the angles turns with time, the second with the row, the third with the
  // column.
  const std::vector<int64_t>* planes[] = {&positions.temporal, &positions.height, &positions.width};
  std::vector<at::Tensor> sections;
  int64_t begin = 0;
  for (int plane = 0; plane < 3; ++plane) {
    const int64_t count = options.mrope_section[plane];
    sections.push_back(angles(*planes[plane], inv_freq.narrow(0, begin, count)));
    begin += count;
  }
  const auto half = at::cat(sections, 1);
  const auto angles_TK = at::cat({half, half}, 1);
  return {at::cos(angles_TK).to(settings.device, settings.dtype),
          at::sin(angles_TK).to(settings.device, settings.dtype)};
}

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
  if (!grids.empty()) {
    auto vision = share_vision(grids, options.vision, groups.context_size(), groups.context_rank(),
                               groups.vision_context, groups.balance_vision);
    if (vision.split != VisionSplit::kNone)
      feature_places = add_route(flow, vision, share, cells, settings);
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
    flow.set(field::kDropoutKeys, host_tensor(tokens.dropout_keys).to(settings.device));
  if (std::any_of(samples.begin(), samples.end(),
                  [](const auto& s) { return !s.labels.empty(); })) {
    add_labels(flow, samples, share.local_row, settings.device);
  }
  if (settings.all_logits) flow.set(field::kLogitRows, at::arange(count).to(settings.device));
  if (settings.last_logits) {
    std::vector<int64_t> last(tokens.bounds.begin() + 1, tokens.bounds.end());
    for (auto& row : last) --row;
    flow.set(field::kLogitRows, host_tensor(last).to(settings.device));
  }
  return flow;
}

}  // namespace triptych::qwen2_5_vl

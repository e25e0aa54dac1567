// From samples to the flow of the first layer.
//
// T tokens of all samples   K head dim

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
#include "models/qwen2_5_vl/flow_parts.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/group.h"
#include "parallel/sequence_split.h"

namespace triptych::qwen2_5_vl {

at::Tensor host_tensor(const std::vector<int64_t>& values) {
  auto result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

at::Tensor inverse_frequencies(double theta, int64_t dim) {
  const auto exponents = at::arange(0, dim, 2, at::kFloat) / static_cast<double>(dim);
  return at::pow(theta, exponents).reciprocal();
}

at::Tensor angles(const std::vector<int64_t>& positions, const at::Tensor& inv_freq) {
  return host_tensor(positions).to(at::kFloat).unsqueeze(1) * inv_freq.unsqueeze(0);
}

int64_t token_key(const FlowSettings::DropoutKey& key, uint64_t place, uint64_t sample) {
  const RandomKey random{key.seed ^ (key.step * 0x9E3779B97F4A7C15ULL), RandomStream::kDropout};
  const auto bits = philox(random, place, sample);
  return static_cast<int64_t>(uint64_t{bits[0]} | uint64_t{bits[1]} << 32);
}

int64_t padding(int64_t count, const ModelGroups& groups) {
  if (!groups.split_tokens()) return 0;
  const int64_t ranks = groups.tensor_size();
  return (ranks - count % ranks) % ranks;
}

namespace {

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

  const auto feature_places = add_vision(flow, options, samples, share.needed, settings);
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

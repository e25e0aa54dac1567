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

/// Rows of pixels of all media, one after another, on the device and in the compute dtype.
at::Tensor gather_pixels(std::span<const SampleView> samples, int64_t P, int64_t F,
                         const FlowSettings& settings) {
  auto pixels_PF = at::empty({P, F}, at::kFloat);
  auto* out = pixels_PF.mutable_data_ptr<float>();
  auto* const end = out + pixels_PF.numel();
  for (const auto& sample : samples) {
    for (const auto& medium : sample.media) {
      require(static_cast<int64_t>(medium.rows.size()) ==
                  medium.grid.t * medium.grid.h * medium.grid.w * F,
              "grid ", medium.grid.t, " x ", medium.grid.h, " x ", medium.grid.w, " needs ", F,
              " values a patch, got ", medium.rows.size(), " values");
      out = std::copy(medium.rows.begin(), medium.rows.end(), out);
    }
  }
  std::fill(out, end, 0.0F);  // cells of pad_cells
  return pixels_PF.to(settings.device, settings.dtype);
}

/// How many tokens (or cells) a sequence needs behind `count`, so that tensor ranks share it
/// evenly.
int64_t padding(int64_t count, const ModelGroups& groups) {
  if (!groups.split_tokens()) return 0;
  const int64_t ranks = groups.tensor_size();
  return (ranks - count % ranks) % ranks;
}

/// Adds cells at the end, in a window and a frame of their own; no feature is taken from them.
void pad_cells(VisionIndex& index, int64_t M, const ModelGroups& groups) {
  const auto cells = static_cast<int64_t>(index.window_index.size());
  const int64_t more = padding(cells, groups);
  if (more == 0) return;
  for (int64_t c = cells; c < cells + more; ++c) index.window_index.push_back(c);
  for (auto* bounds : {&index.cu_window_seqlens, &index.cu_seqlens})
    bounds->push_back((cells + more) * M);
  for (auto* positions : {&index.rows, &index.columns})
    positions->resize(static_cast<size_t>((cells + more) * M), 0);
}

void add_vision(Flow& flow, const VisionOptions& options, std::span<const SampleView> samples,
                std::span<const MediaGrid> grids, const FlowSettings& settings) {
  auto index = vision_index(grids, options);
  const int64_t M = options.cell_patches();
  pad_cells(index, M, settings.groups);
  const auto P = static_cast<int64_t>(index.rows.size());
  if (settings.pixels)
    flow.set(field::kPixels, gather_pixels(samples, P, options.patch_dim(), settings));

  // Half of the head dim turns with the row, half with the column; the tables follow the windows'
  // order.
  const auto inv_freq = inverse_frequencies(options.rope_theta, options.head_dim() / 2);
  const auto half = at::cat({angles(index.rows, inv_freq), angles(index.columns, inv_freq)}, 1);
  const auto window_index = host_tensor(index.window_index);
  const auto ordered = half.reshape({P / M, -1}).index_select(0, window_index).reshape({P, -1});
  const auto angles_PK = at::cat({ordered, ordered}, 1);
  flow.set(field::kVisionCos, at::cos(angles_PK).to(settings.device));
  flow.set(field::kVisionSin, at::sin(angles_PK).to(settings.device));
  flow.set(field::kWindowIndex, window_index.to(settings.device));
  flow.set(field::kReverseIndex, host_tensor(index.reverse_index).to(settings.device));
  flow.set(field::kWindowBounds, host_tensor(index.cu_window_seqlens));
  flow.set(field::kFrameBounds, host_tensor(index.cu_seqlens));

  if (settings.dropout) {
    // A patch's key: its sample and its place among the sample's patches, then into window order.
    auto keys = at::zeros({P}, at::kLong);
    auto* out = keys.mutable_data_ptr<int64_t>();
    const RandomKey random{
        settings.dropout->seed ^ (settings.dropout->step * 0x9E3779B97F4A7C15ULL),
        RandomStream::kDropout};
    for (const auto& sample : samples) {
      uint64_t place = 0;
      for (const auto& medium : sample.media) {
        for (int64_t i = 0; i < medium.grid.t * medium.grid.h * medium.grid.w; ++i, ++place) {
          const auto bits = philox(random, place | (uint64_t{1} << 63), sample.index);
          *out++ = static_cast<int64_t>(uint64_t{bits[0]} | uint64_t{bits[1]} << 32);
        }
      }
    }
    flow.set(
        field::kVisionDropoutKeys,
        keys.reshape({P / M, M}).index_select(0, window_index).reshape({P}).to(settings.device));
  }
}

void add_labels(Flow& flow, std::span<const SampleView> samples, const at::Device& device) {
  std::vector<int64_t> rows, ids;
  std::vector<float> weights;
  int64_t first = 0;
  for (const auto& sample : samples) {
    require(sample.labels.empty() || sample.labels.size() == sample.tokens.size(), "sample ",
            sample.index, ": ", sample.labels.size(), " labels for ", sample.tokens.size(),
            " tokens");
    // The token before a label predicts it; a sample's first label has none before it.
    for (size_t i = 1; i < sample.labels.size(); ++i) {
      if (sample.labels[i] < 0) continue;
      rows.push_back(first + static_cast<int64_t>(i) - 1);
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
  Flow flow;
  std::vector<MediaGrid> grids;
  for (const auto& sample : samples) {
    for (const auto& medium : sample.media) grids.push_back(medium.grid);
  }
  if (!grids.empty() && settings.vision) add_vision(flow, options.vision, samples, grids, settings);

  TextPositions joined;
  std::vector<int64_t> plain_ids, order, bounds{0}, last_rows, dropout_keys;
  size_t cells = 0, grid = 0, tokens = 0;
  for (const auto& sample : samples) {
    const auto positions =
        text_positions(sample.tokens, std::span(grids).subspan(grid, sample.media.size()), options);
    grid += sample.media.size();
    joined.temporal.insert(joined.temporal.end(), positions.temporal.begin(),
                           positions.temporal.end());
    joined.height.insert(joined.height.end(), positions.height.begin(), positions.height.end());
    joined.width.insert(joined.width.end(), positions.width.begin(), positions.width.end());
    for (const auto token : sample.tokens) {
      require<DataError>(token >= 0 && token < options.text.vocab_size, "token ", token,
                         " is outside the vocabulary of ", options.text.vocab_size,
                         "; do tokenizer and model belong together?");
      // A placeholder's row comes after all plain rows; their number is known only at the end.
      const bool placeholder = token == options.ids.image || token == options.ids.video;
      order.push_back(placeholder ? -1 - static_cast<int64_t>(cells++)
                                  : static_cast<int64_t>(plain_ids.size()));
      if (!placeholder) plain_ids.push_back(token);
    }
    if (settings.dropout) {
      const RandomKey random{
          settings.dropout->seed ^ (settings.dropout->step * 0x9E3779B97F4A7C15ULL),
          RandomStream::kDropout};
      for (size_t i = 0; i < sample.tokens.size(); ++i) {
        const auto bits = philox(random, i, sample.index);
        dropout_keys.push_back(static_cast<int64_t>(uint64_t{bits[0]} | uint64_t{bits[1]} << 32));
      }
    }
    tokens += sample.tokens.size();
    bounds.push_back(static_cast<int64_t>(tokens));
    last_rows.push_back(static_cast<int64_t>(tokens) - 1);
  }
  if (const int64_t more = padding(static_cast<int64_t>(tokens), settings.groups); more > 0) {
    for (int64_t i = 0; i < more; ++i) {
      order.push_back(static_cast<int64_t>(plain_ids.size()));
      plain_ids.push_back(0);  // any word: nothing is learned from it
    }
    for (auto* plane : {&joined.temporal, &joined.height, &joined.width})
      plane->resize(tokens + static_cast<size_t>(more), 0);
    if (settings.dropout) dropout_keys.resize(tokens + static_cast<size_t>(more), 0);
    bounds.push_back(static_cast<int64_t>(tokens) + more);
  }
  for (auto& row : order) {
    if (row < 0) row = static_cast<int64_t>(plain_ids.size()) - 1 - row;
  }

  const auto [cos, sin] = text_rotary(options.text, joined, settings);
  flow.set(field::kPlainIds, host_tensor(plain_ids).to(settings.device));
  flow.set(field::kOrder, host_tensor(order).to(settings.device));
  flow.set(field::kSampleBounds, host_tensor(bounds));
  flow.set(field::kCos, cos);
  flow.set(field::kSin, sin);
  if (settings.dropout)
    flow.set(field::kDropoutKeys, host_tensor(dropout_keys).to(settings.device));
  if (std::any_of(samples.begin(), samples.end(),
                  [](const auto& s) { return !s.labels.empty(); })) {
    add_labels(flow, samples, settings.device);
  }
  if (settings.all_logits)
    flow.set(field::kLogitRows, at::arange(static_cast<int64_t>(tokens)).to(settings.device));
  if (settings.last_logits) flow.set(field::kLogitRows, host_tensor(last_rows).to(settings.device));
  return flow;
}

}  // namespace triptych::qwen2_5_vl

// The fields of the text model.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>

#include <algorithm>

#include "base/error.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/flow_parts.h"
#include "nn/dropout.h"

namespace triptych::qwen2_5_vl {

at::Tensor index_tensor(const at::Tensor& host, at::Device device) {
  return device.is_meta() ? host : host.to(device);
}

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

int64_t padding(int64_t count, const ModelGroups& groups) {
  if (!groups.split_tokens()) return 0;
  const int64_t ranks = groups.tensor_size();
  return (ranks - count % ranks) % ranks;
}

namespace {

template <class Values>
void append_all(std::vector<int64_t>& to, const Values& values) {
  to.insert(to.end(), values.begin(), values.end());
}

}  // namespace

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
      dropout_keys.push_back(
          dropout_key(settings.dropout->seed, settings.dropout->step, sample.index, i));
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
  flow.set(field::kPlainIds, index_tensor(host_tensor(words), device));
  flow.set(field::kOrder, index_tensor(host_tensor(order), device));
}

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
  flow.set(field::kLabelRows, index_tensor(host_tensor(rows), device));
  flow.set(field::kLabels, index_tensor(host_tensor(ids), device));
  flow.set(field::kLabelWeights, weights_N.to(device));
}

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

}  // namespace triptych::qwen2_5_vl

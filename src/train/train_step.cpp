#include "train/train_step.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>

namespace triptych {

std::vector<int64_t> label_counts(const MicroBatch& batch) {
  std::vector<int64_t> counts;
  for (const auto& row : batch.rows) {
    for (const auto& sample : row.samples) {
      int64_t labels = 0;
      for (size_t i = 1; i < sample.labels.size(); ++i) labels += sample.labels[i] >= 0;
      counts.push_back(labels);
    }
  }
  return counts;
}

FlowRequest TrainStep::flow_request(int64_t step) const {
  return {.device = settings_.device,
          .dtype = settings_.dtype,
          .dropout = loaded_.lora && loaded_.lora->dropout > 0,
          .seed = settings_.seed,
          .step = static_cast<uint64_t>(step),
          .groups = loaded_.groups};
}

StepReport TrainStep::run(std::span<const MicroBatch> micro_batches, int64_t step,
                          double learning_rate) {
  // Labels are known before any compute, so the whole step's counts are summed over the ranks
  // first.
  std::vector<std::vector<int64_t>> labels;
  std::vector<LabelCounts> counts;
  LabelCounts mine;
  double tokens = 0, samples = 0, flop = 0;
  for (const auto& batch : micro_batches) {
    labels.push_back(label_counts(batch));
    counts.push_back(count_labels(labels.back()));
    mine += counts.back();
    samples += static_cast<double>(labels.back().size());
    const auto size = loaded_.family->flow_size(batch);
    tokens += static_cast<double>(size.tokens);
    flop += training_flop(loaded_.model, size);
  }
  const auto sums_here =
      at::tensor({mine.tokens, mine.samples, mine.roots, mine.micro_batches, tokens, samples, flop},
                 at::kDouble)
          .to(settings_.device);
  data_.all_reduce(sums_here, ReduceOp::kSum, "label counts");
  const auto sums = sums_here.cpu();
  const auto* sum = sums.const_data_ptr<double>();
  const LabelCounts total{
      .tokens = sum[0], .samples = sum[1], .roots = sum[2], .micro_batches = sum[3]};

  optimizer_.begin_step(static_cast<int64_t>(micro_batches.size()));
  double loss = 0;
  const auto request = flow_request(step);
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    if (counts[i].tokens > 0) {
      std::vector<double> weights;
      for (const auto n : labels[i])
        weights.push_back(token_weight(settings_.loss_average, total, counts[i], n));
      auto flow = loaded_.family->make_flow(micro_batches[i], weights, request);
      run_layers(loaded_.model, flow, settings_.recompute);
      const auto& part = flow.at(loaded_.family->loss_field());
      loss += part.item<double>();
      part.backward();
    }
    optimizer_.finish_micro_batch();
  }
  const auto losses = at::tensor({loss}, at::kDouble).to(settings_.device);
  // Ranks of one context group counted the same labels, but each found the loss of its own tokens.
  if (loaded_.groups.context_size() > 1)
    loaded_.groups.context->all_reduce(losses, ReduceOp::kSum, "loss");
  data_.all_reduce(losses, ReduceOp::kSum, "loss");

  StepReport report{.loss = losses.item<double>(),
                    .label_tokens = static_cast<int64_t>(sum[0]),
                    .input_tokens = static_cast<int64_t>(sum[4]),
                    .samples = static_cast<int64_t>(sum[5]),
                    .flop = sum[6]};
  report.finite = std::isfinite(report.loss);
  if (total.tokens == 0 || !report.finite) {
    optimizer_.skip_step();
    report.updated = false;
    return report;
  }
  if (settings_.before_update) settings_.before_update();
  const auto result =
      optimizer_.step({.learning_rate = learning_rate, .clip_norm = settings_.clip_norm});
  report.norm = result.norm;
  report.updated = result.updated;
  report.finite = std::isfinite(result.norm);
  return report;
}

std::string TrainStep::nonfinite_layer(const MicroBatch& batch, int64_t step) const {
  const at::NoGradGuard no_grad;
  std::string found;
  auto flow = loaded_.family->make_flow(batch, {}, flow_request(step));
  run_layers(loaded_.model, flow, {}, [&](size_t layer, const Flow& now) {
    for (const auto& [name, value] : now.entries()) {
      if (!found.empty() || !value.defined() || !value.is_floating_point()) continue;
      if (!value.isfinite().all().item<bool>())
        found = "the output of " + loaded_.model.layers[layer]->name();
    }
  });
  return found;
}

std::string TrainStep::find_nonfinite(std::span<const MicroBatch> micro_batches, int64_t step) {
  std::string found;
  for (const auto& batch : micro_batches) {
    // also after the first find: other ranks of this model take part in every layer
    const auto here = nonfinite_layer(batch, step);
    if (found.empty()) found = here;
  }
  // Every rank takes part in the sums of gradients, also one that has found its culprit.
  optimizer_.begin_step(static_cast<int64_t>(micro_batches.size()));
  for (const auto& batch : micro_batches) {
    if (count_labels(label_counts(batch)).tokens > 0) {
      auto flow = loaded_.family->make_flow(batch, {}, flow_request(step));
      run_layers(loaded_.model, flow, settings_.recompute);
      flow.at(loaded_.family->loss_field()).backward();
    }
    optimizer_.finish_micro_batch();
  }
  for (const auto& range : optimizer_.ranges()) {
    if (found.empty() && !optimizer_.gradient(range).isfinite().all().item<bool>())
      found = "the gradient of " + range.name;
  }
  optimizer_.skip_step();
  return found;
}

LossSum evaluate_loss(const LoadedModel& loaded, const MicroBatch& batch,
                      const StepSettings& settings) {
  const at::NoGradGuard no_grad;
  LossSum sum;
  for (const auto n : label_counts(batch)) sum.tokens += static_cast<double>(n);
  if (sum.tokens == 0) return sum;
  auto flow = loaded.family->make_flow(
      batch, {}, {.device = settings.device, .dtype = settings.dtype, .groups = loaded.groups});
  run_layers(loaded.model, flow);
  sum.loss = flow.at(loaded.family->loss_field()).item<double>();
  return sum;
}

}  // namespace triptych

#include "train/train_step.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>
#include <map>

#include "base/format.h"
#include "base/trace_scope.h"
#include "kernels/memory_scope.h"
#include "kernels/meta_memory.h"
#include "parallel/parameter_shards.h"

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

namespace {
std::vector<bool> have_labels(std::span<const MicroBatch> micro_batches) {
  std::vector<bool> result;
  for (const auto& batch : micro_batches)
    result.push_back(count_labels(label_counts(batch)).tokens > 0);
  return result;
}

LayerRange all_layers(const Model& model) { return {0, static_cast<int64_t>(model.layers.size())}; }
}  // namespace

TrainStep::TrainStep(const LoadedModel& loaded, ShardedOptimizer& optimizer, Group& data,
                     StepSettings settings, Stage* stage)
    : loaded_(loaded),
      optimizer_(optimizer),
      data_(data),
      settings_(std::move(settings)),
      stage_(stage) {
  if (loaded.model.shards) loaded.model.shards->gather_together(settings_.recompute.groups());
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
  std::vector<double> numbers{mine.tokens, mine.samples, mine.roots, mine.micro_batches,
                              tokens,      samples,      flop};
  const size_t of_step = numbers.size();
  const bool together = loaded_.groups.shares_pictures_over_data();
  for (size_t i = 0; together && i < counts.size(); ++i) numbers.push_back(counts[i].tokens);
  const auto counts_here = at::tensor(numbers, at::kDouble);
  const auto sums_here = counts_here.to(settings_.device);
  data_.all_reduce(sums_here, ReduceOp::kSum, "label counts");
  const auto sums = sums_here.is_meta() ? counts_here : sums_here.cpu();
  const auto* sum = sums.const_data_ptr<double>();
  computed_ = have_labels(micro_batches);
  for (size_t i = 0; together && i < computed_.size(); ++i) computed_[i] = sum[of_step + i] > 0;
  const LabelCounts total{
      .tokens = sum[0], .samples = sum[1], .roots = sum[2], .micro_batches = sum[3]};

  const double loss = compute_gradients(micro_batches, step, [&](size_t i) {
    std::vector<double> weights;
    for (const auto n : labels[i])
      weights.push_back(token_weight(settings_.loss_average, total, counts[i], n));
    return weights;
  });
  const auto losses = at::tensor({loss}, at::kDouble).to(settings_.device);
  // Ranks of one context group counted the same labels, but each found the loss of its own tokens.
  if (loaded_.groups.context_size() > 1)
    loaded_.groups.context->all_reduce(losses, ReduceOp::kSum, "loss");
  this->losses().all_reduce(losses, ReduceOp::kSum, "loss");

  StepReport report{.loss = host_value(losses),
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
  if (settings_.before_update) {
    const MemoryScope memory(MemoryPhase::kSave);
    settings_.before_update();
  }
  const TraceScope trace("Optimizer.step#AdamW");
  const auto result =
      optimizer_.step({.learning_rate = learning_rate, .clip_norm = settings_.clip_norm});
  report.norm = result.norm;
  report.updated = result.updated;
  report.finite = std::isfinite(result.norm);
  return report;
}

Flow TrainStep::make_flow(const MicroBatch& batch, const std::vector<double>& weights,
                          const FlowRequest& request) const {
  const MemoryScope memory(MemoryPhase::kInput);
  return loaded_.family->make_flow(batch, weights, request);
}

double TrainStep::compute_gradients(std::span<const MicroBatch> micro_batches, int64_t step,
                                    const WeightsOf& weights_of) {
  if (stage_ != nullptr) return compute_in_pipeline(micro_batches, step, weights_of);
  optimizer_.begin_step(static_cast<int64_t>(micro_batches.size()));
  forget_memory_sequences();
  double loss = 0;
  const auto request = flow_request(step);
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    if (computed_[i]) {
      const TraceScope whole("micro-batch ", trace_sink() ? fmt::format("{}", i) : std::string());
      auto flow = make_flow(micro_batches[i], weights_of(i), request);
      {
        const TraceScope trace("forward");
        run_layers(loaded_.model, flow, settings_.recompute);
      }
      const auto& part = flow.at(loaded_.family->loss_field());
      loss += host_value(part);
      const TraceScope trace("backward");
      // Without pictures nothing of a trained vision tower below a frozen text model is reached.
      if (part.requires_grad()) part.backward();
    } else if (loaded_.model.shards) {
      loaded_.model.shards->idle_forward(all_layers(loaded_.model));
    }
    optimizer_.finish_micro_batch();
  }
  return loss;
}

double TrainStep::compute_in_pipeline(std::span<const MicroBatch> micro_batches, int64_t step,
                                      const WeightsOf& weights_of) {
  const auto request = flow_request(step);
  auto work = stage_work(micro_batches, request, weights_of, computed_);
  double loss = 0;
  work.loss = [&](int64_t /*micro_batch*/, const Flow& flow) {
    const auto& part = flow.at(loaded_.family->loss_field());
    loss += host_value(part);
    return part;
  };
  const bool parted = stage_->pipeline().weight_gradients() != nullptr;
  work.slot_done = [&, forward_done = work.slot_done](const Slot& slot, bool computed) {
    forward_done(slot, computed);
    if (slot.kind == SlotKind::kForward) return;
    if (loaded_.model.shards && slot.kind != SlotKind::kBackwardWeight)
      loaded_.model.shards->end_backward(stage_->range(slot.chunk));
    if (slot.kind != SlotKind::kBackwardInput) optimizer_.finish_backward(slot.chunk);
  };
  work.chunk_done = [&](int64_t chunk) { optimizer_.finish_chunk(chunk); };
  work.observe = settings_.observe_slot;
  const auto count = static_cast<int64_t>(micro_batches.size());
  optimizer_.begin_pipelined_step(count, parted);
  forget_memory_sequences();
  stage_->pipeline().run(work, count);
  optimizer_.finish_micro_batches();
  return loss;
}

/// Without `loss`, which belongs to the caller.
PipelineWork TrainStep::stage_work(std::span<const MicroBatch> micro_batches,
                                   const FlowRequest& request, const WeightsOf& weights_of,
                                   std::vector<bool> computed) const {
  PipelineWork work;
  work.computes = [computed = std::move(computed)](int64_t i) {
    return computed[static_cast<size_t>(i)];
  };
  work.make_flow = [=, this, &request](int64_t micro_batch) {
    const auto i = static_cast<size_t>(micro_batch);
    auto own = request;
    own.with_pixels = stage_->reads_pixels();
    own.with_vision = stage_->reads_vision();
    return make_flow(micro_batches[i], weights_of(i), own);
  };
  work.run_layers = [this](int64_t chunk, int64_t /*micro_batch*/, Flow& flow) {
    run_layers(loaded_.model, stage_->range(chunk), flow, settings_.recompute);
  };
  // where other ranks gather the layers of a micro-batch that this one leaves out
  work.slot_done = [this](const Slot& slot, bool computed) {
    if (!computed && slot.kind == SlotKind::kForward && loaded_.model.shards)
      loaded_.model.shards->idle_forward(stage_->range(slot.chunk));
  };
  return work;
}

NonfinitePlace TrainStep::nonfinite_layer(std::span<const MicroBatch> micro_batches, int64_t step) {
  const at::NoGradGuard no_grad;
  NonfinitePlace found;
  const LayerObserver look = [&](size_t layer, const Flow& now) {
    const auto order = static_cast<int64_t>(layer);
    if (order >= found.order) return;
    for (const auto& [name, value] : now.entries()) {
      if (!value.defined() || !value.is_floating_point()) continue;
      if (value.isfinite().all().item<bool>()) continue;
      found = {order, "the output of " + loaded_.model.layers[layer]->name()};
      return;
    }
  };
  const auto request = flow_request(step);
  const WeightsOf no_weights = [](size_t) { return std::vector<double>(); };
  if (stage_ == nullptr) {
    for (const auto& batch : micro_batches) {
      auto flow = loaded_.family->make_flow(batch, {}, request);
      run_layers(loaded_.model, flow, {}, look);
    }
    return found;
  }
  auto work = stage_work(micro_batches, request, no_weights, computed_);
  work.run_layers = [&](int64_t chunk, int64_t /*micro_batch*/, Flow& flow) {
    run_layers(loaded_.model, stage_->range(chunk), flow, {}, look);
  };
  work.loss = [](int64_t /*micro_batch*/, const Flow& /*flow*/) { return at::zeros({}); };
  stage_->pipeline().run_forward(work, static_cast<int64_t>(micro_batches.size()));
  return found;
}

NonfinitePlace TrainStep::find_nonfinite(std::span<const MicroBatch> micro_batches, int64_t step) {
  auto found = nonfinite_layer(micro_batches, step);
  // Every rank takes part in the sums of gradients, also one that has found its culprit.
  compute_gradients(micro_batches, step, [](size_t) { return std::vector<double>(); });
  // Backward goes from the last layer to the first.
  std::map<std::string, int64_t> order;
  const auto layers = static_cast<int64_t>(loaded_.model.layers.size());
  for (int64_t i = 0; i < layers; ++i) {
    for (const auto& p : loaded_.model.layers[static_cast<size_t>(i)]->parameters())
      order[p->name] = 2 * layers - i;
  }
  for (const auto& range : optimizer_.ranges()) {
    if (order[range.name] < found.order &&
        !optimizer_.gradient(range).isfinite().all().item<bool>())
      found = {order[range.name], "the gradient of " + range.name};
  }
  optimizer_.skip_step();
  return found;
}

LossSum TrainStep::evaluate(std::span<const MicroBatch> micro_batches) {
  LossSum sum;
  if (stage_ == nullptr) {
    for (const auto& batch : micro_batches) {
      const auto part = evaluate_loss(loaded_, batch, settings_);
      sum.loss += part.loss;
      sum.tokens += part.tokens;
    }
    return sum;
  }
  const FlowRequest request{.device = settings_.device,
                            .dtype = settings_.dtype,
                            .groups = loaded_.groups.with_own_pictures()};
  const WeightsOf no_weights = [](size_t) { return std::vector<double>(); };
  auto work = stage_work(micro_batches, request, no_weights, have_labels(micro_batches));
  work.run_layers = [&](int64_t chunk, int64_t /*micro_batch*/, Flow& flow) {
    run_layers(loaded_.model, stage_->range(chunk), flow);
  };
  work.loss = [&](int64_t micro_batch, const Flow& flow) {
    const auto& loss = flow.at(loaded_.family->loss_field());
    sum.loss += loss.item<double>();
    for (const auto n : label_counts(micro_batches[static_cast<size_t>(micro_batch)]))
      sum.tokens += static_cast<double>(n);
    return loss;
  };
  stage_->pipeline().run_forward(work, static_cast<int64_t>(micro_batches.size()));
  return sum;
}

LossSum evaluate_loss(const LoadedModel& loaded, const MicroBatch& batch,
                      const StepSettings& settings) {
  const at::NoGradGuard no_grad;
  LossSum sum;
  for (const auto n : label_counts(batch)) sum.tokens += static_cast<double>(n);
  if (sum.tokens == 0) {
    if (loaded.model.shards) loaded.model.shards->idle_forward(all_layers(loaded.model));
    return sum;
  }
  auto flow = loaded.family->make_flow(batch, {},
                                       {.device = settings.device,
                                        .dtype = settings.dtype,
                                        .groups = loaded.groups.with_own_pictures()});
  run_layers(loaded.model, flow);
  sum.loss = flow.at(loaded.family->loss_field()).item<double>();
  return sum;
}

}  // namespace triptych

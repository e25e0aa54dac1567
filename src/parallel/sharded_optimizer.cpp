#include "parallel/sharded_optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "kernels/memory_scope.h"
#include "kernels/meta_memory.h"
#include "parallel/gradient_hook.h"
#include "parallel/parameter_shards.h"
#include "parallel/process_context.h"
#include "parallel/sharded_optimizer_impl.h"

namespace triptych {

double ShardedOptimizer::Impl::local_sum_of_squares() const {
  std::vector<at::Tensor> gradients;
  for (const auto& bucket : buckets) {
    for (const auto& slice : bucket.slices) {
      const auto& t = trained[slice.trained];
      if (!t.counted || !t.in_step) continue;
      gradients.push_back(flat ? slice.gradient : sum(t));
    }
  }
  return triptych::sum_of_squares(gradients);
}

// ---------------------------------------------------------------------------------------- update

/// @param states  those of the bucket, where the update computes
AdamWTensor ShardedOptimizer::Impl::adamw_tensor(const OptimizerSlice& slice,
                                                 const BucketStates& states) {
  auto& t = trained[slice.trained];
  const auto own = [&slice](const at::Tensor& state) {
    return state.defined() ? state.narrow(0, slice.in_shard, slice.end - slice.begin) : state;
  };
  AdamWTensor a{.weight = slice.weight,
                .exp_avg = own(states.exp_avg),
                .exp_avg_sq = own(states.exp_avg_sq),
                .low = own(states.low),
                .weight_decay = t.weight_decay};
  if (flat) {
    a.grad = slice.gradient;
    return a;
  }
  const auto& grad = t.value().grad();
  if (t.has_main || !grad.is_sparse()) {
    a.grad = sum(t).view(-1);
    t.touched.reset();
    return a;
  }
  const auto shape = t.value().sizes();
  const auto rows = rows_of(grad, t.name());
  a.grad = rows.values;
  a.rows = rows.numbers;
  for (auto* state : {&a.weight, &a.exp_avg, &a.exp_avg_sq, &a.low}) {
    if (state->defined()) *state = state->view(shape);
  }
  if (!t.touched.defined()) {
    t.touched = t.steps == 0
                    ? at::zeros({shape[0]}, at::TensorOptions(grad.device()).dtype(at::kByte))
                    : touched_rows(a.exp_avg, a.exp_avg_sq);
  }
  a.touched = t.touched;
  return a;
}

/// The states on the parameters' device: themselves, or copies of those in host memory, which
/// follow the device's work while the host goes on.
BucketStates ShardedOptimizer::Impl::states_on_device(const OptimizerBucket& bucket) const {
  if (!offloads(bucket)) return bucket.states;
  const auto copy = [&](const at::Tensor& state) {
    if (state.defined() && state.is_meta()) return at::empty(state.sizes(), state.options());
    return state.defined() ? state.to(bucket.device, /*non_blocking=*/true) : state;
  };
  return {copy(bucket.states.exp_avg), copy(bucket.states.exp_avg_sq), copy(bucket.states.low)};
}

void ShardedOptimizer::Impl::keep_states(OptimizerBucket& bucket, const BucketStates& states) {
  if (!offloads(bucket)) return;
  const auto keep = [](const at::Tensor& to, const at::Tensor& from) {
    if (to.defined()) to.copy_(from, /*non_blocking=*/true);
  };
  keep(bucket.states.exp_avg, states.exp_avg);
  keep(bucket.states.exp_avg_sq, states.exp_avg_sq);
  keep(bucket.states.low, states.low);
  states_in_flight = true;
}

void ShardedOptimizer::Impl::update(OptimizerBucket& bucket, const BucketStates& states,
                                    double learning_rate, double factor) {
  std::map<int64_t, std::vector<AdamWTensor>> by_count;  // nearly always one entry
  for (const auto& slice : bucket.slices) {
    const auto& t = trained[slice.trained];
    if (t.in_step) by_count[t.steps + 1].push_back(adamw_tensor(slice, states));
  }
  for (const auto& [count, tensors] : by_count) {
    triptych::adamw(tensors, {.step = count,
                              .learning_rate = learning_rate,
                              .beta1 = adamw.beta1,
                              .beta2 = adamw.beta2,
                              .eps = adamw.eps,
                              .grad_scale = factor});
  }
}

/// Every rank's slices of the updated weights; with sharded parameters there is nothing to do.
Pending ShardedOptimizer::Impl::gather(OptimizerBucket& bucket) {
  if (!bucket.weights.defined() || shard_group().size() == 1) return {};
  return shard_group().all_gather_into_async(
      bucket.weights, bucket.weights.narrow(0, bucket.shard_begin, bucket.shard_size),
      fmt::format("weights of bucket {}", &bucket - buckets.data()));
}

// -------------------------------------------------------------------------------- public interface

ShardedOptimizer::ShardedOptimizer(const ParameterList& parameters, const AdamWSettings& adamw,
                                   const ShardingSettings& sharding, const OptimizerGroups& groups)
    : impl_(std::make_unique<Impl>()) {
  require<UsageError>(sharding.zero >= 0 && sharding.zero <= 3, "parallel.zero = ", sharding.zero,
                      "; allowed: 0, 1, 2, 3");
  const at::NoGradGuard no_grad;
  const MemoryScope memory(MemoryPhase::kLoad, MemoryKind::kOptimizerState);
  auto& self = *impl_;
  self.adamw = adamw;
  self.sharding = sharding;
  self.groups = groups;
  for (auto* group : {&self.groups.gradients, &self.groups.norm, &self.groups.sharing.shards,
                      &self.groups.sharing.replicas}) {
    if (*group == nullptr) *group = &self.alone;
  }
  self.flat = self.gradient_group().size() > 1;
  self.take(parameters);
  self.make_buckets();
  // Not in the midst of backward, where a rank that waits for another to connect holds up a third.
  self.shard_group().connect();
  self.replica_group().connect();
  self.install_hooks();
}

ShardedOptimizer::~ShardedOptimizer() {
  for (const auto& t : impl_->trained) set_gradient_hook(t.value(), nullptr);
  if (impl_->groups.parameters != nullptr) impl_->groups.parameters->on_layer_done(nullptr);
}

void ShardedOptimizer::begin_step(int64_t micro_batches) {
  require(micro_batches >= 1, "optimizer: a step needs at least one micro-batch, got ",
          micro_batches);
  impl_->clear_gradients();
  impl_->micro_batches = micro_batches;
}

void ShardedOptimizer::finish_micro_batch() {
  auto& self = *impl_;
  require(self.micro_batches_done < self.micro_batches, "optimizer: all ", self.micro_batches,
          " micro-batches of this step are done already");
  self.run_waiting();
  if (self.groups.parameters != nullptr) self.groups.parameters->end_backward();
  for (auto& chunk : self.chunks) self.finish_pass(chunk);
  ++self.micro_batches_done;
  if (self.complete()) self.complete_step();
}

void ShardedOptimizer::begin_pipelined_step(int64_t micro_batches, bool parted) {
  begin_step(micro_batches);
  impl_->pipelined = true;
  impl_->parted = parted;
}

void ShardedOptimizer::finish_backward(int64_t chunk) {
  auto& self = *impl_;
  self.run_waiting();
  const std::lock_guard lock(self.mutex);
  require(self.pipelined, "optimizer: finish_backward needs begin_pipelined_step");
  self.finish_pass(self.chunks.at(static_cast<size_t>(chunk)));
}

void ShardedOptimizer::finish_chunk(int64_t chunk) {
  auto& self = *impl_;
  const std::lock_guard lock(self.mutex);
  require(self.pipelined, "optimizer: finish_chunk needs begin_pipelined_step");
  if (self.flat && self.sharding.overlap && !self.shards_gradients())
    self.launch_rest(self.chunks.at(static_cast<size_t>(chunk)));
}

void ShardedOptimizer::finish_micro_batches() {
  auto& self = *impl_;
  require(self.pipelined, "optimizer: finish_micro_batches needs begin_pipelined_step");
  self.micro_batches_done = self.micro_batches;
  self.complete_step();
}

double ShardedOptimizer::norm(double scale) {
  auto& self = *impl_;
  require(self.complete(), "optimizer: the norm is known after the last micro-batch; ",
          self.micro_batches_done, " of ", self.micro_batches, " are done");
  if (self.sum_of_squares < 0) {
    const auto device =
        self.trained.empty() ? at::Device(at::kCPU) : self.trained.front().value().device();
    const auto sum =
        at::full({1}, self.local_sum_of_squares(), at::TensorOptions(device).dtype(at::kDouble));
    self.groups.norm->all_reduce(sum, ReduceOp::kSum, "gradient norm");
    self.sum_of_squares = host_value(sum);
  }
  return std::abs(scale) * std::sqrt(self.sum_of_squares);
}

ShardedOptimizer::StepResult ShardedOptimizer::step(const StepRequest& request) {
  const at::NoGradGuard no_grad;
  const MemoryScope memory(MemoryPhase::kUpdate);
  auto& self = *impl_;
  const double norm = this->norm(request.scale);
  if (!std::isfinite(norm)) {
    self.clear_gradients();
    return {.norm = norm, .updated = false};
  }
  const double clip =
      request.clip_norm > 0 ? std::min(1.0, request.clip_norm / (norm + 1e-6)) : 1.0;
  // the buckets that forward needs first come last: update and send them first
  BucketStates ahead;  // of the next bucket: copies from the host come beside this one's update
  if (!self.buckets.empty()) ahead = self.states_on_device(self.buckets.back());
  for (auto bucket = self.buckets.rbegin(); bucket != self.buckets.rend(); ++bucket) {
    const auto states = std::move(ahead);
    if (bucket + 1 != self.buckets.rend()) ahead = self.states_on_device(*(bucket + 1));
    self.update(*bucket, states, request.learning_rate, request.scale * clip);
    self.keep_states(*bucket, states);
    bucket->gathering = self.gather(*bucket);
  }
  for (auto bucket = self.buckets.rbegin(); bucket != self.buckets.rend(); ++bucket) {
    bucket->gathering.wait();
  }
  for (auto& t : self.trained) t.steps += t.in_step ? 1 : 0;
  ++self.steps;
  self.clear_gradients();
  return {.norm = norm, .updated = true};
}

void ShardedOptimizer::skip_step() { impl_->clear_gradients(); }

OptimizerGroups optimizer_groups(ProcessContext& process, int64_t zero,
                                 const ZeroGroupChoice& zero_group) {
  return {.gradients = &process.group(kGradientGroup),
          .sharing = shard_groups(process, zero, zero_group),
          .norm = &process.group(zero == 0 ? kModelGroup : kWorldGroup),
          .tensor = &process.group(kTensorGroup),
          .coordinates = process.coordinates()};
}

}  // namespace triptych

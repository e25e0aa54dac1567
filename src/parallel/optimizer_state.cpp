// What checkpoints and tests read of the optimizer, and put back.

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "parallel/parameter_shards.h"
#include "parallel/sharded_optimizer_impl.h"

namespace triptych {

const OptimizerSlice& ShardedOptimizer::Impl::slice(const StateRange& range) const {
  const auto it = by_name.find(range.name);
  require(it != by_name.end(), "optimizer: no trained parameter '", range.name, "'");
  for (const auto& slice : buckets[trained[it->second].bucket].slices) {
    if (slice.trained == it->second && slice.begin == range.begin && slice.end == range.end) {
      return slice;
    }
  }
  fail("optimizer: this rank does not hold exactly [", range.begin, ", ", range.end, ") of '",
       range.name, "'");
}

/// Before the host reads or writes states that the device may still be copying.
void ShardedOptimizer::Impl::await_states() {
  if (!states_in_flight) return;
  states_in_flight = false;
  const auto device = buckets.front().device;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

int64_t ShardedOptimizer::trained_elements() const {
  int64_t total = 0;
  for (const auto& t : impl_->trained) total += t.value().numel();
  return total;
}

int64_t ShardedOptimizer::state_bytes() const {
  int64_t total = 0;
  const auto add = [&total](const at::Tensor& tensor) {
    if (tensor.defined()) total += static_cast<int64_t>(tensor.nbytes());
  };
  for (const auto& bucket : impl_->buckets) {
    add(impl_->shards_gradients() ? bucket.shard : bucket.gradients);
    for (const auto& slice : bucket.slices) {
      add(slice.exp_avg);
      add(slice.exp_avg_sq);
      add(slice.low);
    }
  }
  if (!impl_->flat) {
    for (const auto& t : impl_->trained) add(t.main);
  }
  return total;
}

int64_t ShardedOptimizer::steps() const { return impl_->steps; }

std::map<std::string, int64_t> ShardedOptimizer::deviating_steps() const {
  std::map<std::string, int64_t> deviating;
  for (const auto& t : impl_->trained) {
    if (t.steps != impl_->steps) deviating[t.name()] = t.steps;
  }
  return deviating;
}

void ShardedOptimizer::set_steps(int64_t steps, const std::map<std::string, int64_t>& deviating) {
  impl_->steps = steps;
  for (auto& t : impl_->trained) {
    const auto it = deviating.find(t.name());
    t.steps = it == deviating.end() ? steps : it->second;
  }
}

std::vector<StateRange> ShardedOptimizer::ranges() const {
  const auto& self = *impl_;
  const bool writer = self.replica_group().rank() == 0;
  std::vector<StateRange> ranges;
  for (const auto& bucket : self.buckets) {
    for (const auto& slice : bucket.slices) {
      const auto& t = self.trained[slice.trained];
      ranges.push_back({t.name(), slice.begin, slice.end,
                        writer && t.parameter->first_copy && self.is_owner(*t.parameter)});
    }
  }
  return ranges;
}

at::Tensor ShardedOptimizer::state(const StateRange& range, StateKind kind) const {
  const at::NoGradGuard no_grad;
  const auto& slice = impl_->slice(range);
  impl_->await_states();
  switch (kind) {
    case StateKind::kExpAvg:
      return slice.exp_avg;
    case StateKind::kExpAvgSq:
      return slice.exp_avg_sq;
    case StateKind::kMaster:
      break;
  }
  return slice.low.defined() ? join_master(slice.weight.to(slice.low.device()), slice.low)
                             : slice.weight;
}

void ShardedOptimizer::set_state(const std::string& name, StateKind kind, int64_t begin,
                                 int64_t end, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  auto& self = *impl_;
  const auto it = self.by_name.find(name);
  require(it != self.by_name.end(), "optimizer: no trained parameter '", name, "'");
  auto& t = self.trained[it->second];
  require(begin >= 0 && begin <= end && end <= t.value().numel() && values.numel() == end - begin,
          "optimizer: '", name, "' has ", t.value().numel(), " elements, got ", values.numel(),
          " values for [", begin, ", ", end, ")");
  t.touched.reset();
  self.await_states();
  for (const auto& slice : self.buckets[t.bucket].slices) {
    const int64_t from = std::max(begin, slice.begin), to = std::min(end, slice.end);
    if (slice.trained != it->second || from >= to) continue;
    const auto given = values.reshape(-1).narrow(0, from - begin, to - from).to(at::kFloat);
    const auto own = [&](const at::Tensor& held) {
      return held.narrow(0, from - slice.begin, to - from);
    };
    if (kind == StateKind::kExpAvg) {
      own(slice.exp_avg).copy_(given);
    } else if (kind == StateKind::kExpAvgSq) {
      own(slice.exp_avg_sq).copy_(given);
    } else if (slice.low.defined()) {
      const auto split = split_master(given.to(slice.weight.device()));
      own(slice.weight).copy_(split.weight);
      own(slice.low).copy_(split.low);
    } else {
      own(slice.weight).copy_(given);
    }
  }
}

void ShardedOptimizer::finish_loading() {
  const at::NoGradGuard no_grad;
  if (impl_->groups.parameters != nullptr) impl_->groups.parameters->release_all();
  for (auto& bucket : impl_->buckets) impl_->gather(bucket).wait();
}

at::Tensor ShardedOptimizer::gradient(const StateRange& range) const {
  const at::NoGradGuard no_grad;
  const auto& self = *impl_;
  require(self.complete(), "optimizer: gradients are complete after the last micro-batch");
  const auto& slice = self.slice(range);
  const auto& t = self.trained[slice.trained];
  if (self.flat) return slice.gradient;
  if (t.has_main) return t.main.view(-1).narrow(0, slice.begin, slice.end - slice.begin);
  const auto& grad = t.value().grad();
  if (!grad.defined()) return at::zeros({slice.end - slice.begin}, slice.exp_avg.options());
  return (grad.is_sparse() ? grad.to_dense() : grad).to(at::kFloat).reshape(-1);
}

}  // namespace triptych

// From the gradients that autograd delivers to their sums over all ranks.

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "kernels/memory_ledger.h"
#include "parallel/gradient_hook.h"
#include "parallel/parameter_shards.h"
#include "parallel/passing_memory.h"
#include "parallel/sharded_optimizer_impl.h"

namespace triptych {

GradientRows rows_of(const at::Tensor& sparse, const std::string& name) {
  // In a plan a row is never there twice, whatever autograd has forgotten about it.
  const auto coalesced = sparse.is_coalesced() || sparse.is_meta() ? sparse : sparse.coalesce();
  require(coalesced.sparse_dim() == 1, "optimizer: the sparse gradient of '", name, "' has ",
          coalesced.sparse_dim(), " sparse dims; only rows may be sparse");
  return {coalesced._indices().select(0, 0).contiguous(), coalesced._values().contiguous()};
}

void ShardedOptimizer::Impl::install_hooks() {
  for (size_t i = 0; i < trained.size(); ++i) {
    set_gradient_hook(trained[i].value(), [this, i] { on_gradient(i); });
  }
  if (groups.parameters != nullptr && flat)
    groups.parameters->on_layer_done([this](size_t layer) { leave_layer(layer); });
}

void ShardedOptimizer::Impl::on_gradient(size_t index) {
  auto& t = trained[index];
  const std::lock_guard lock(mutex);
  // Undefined: the layer has put its weight gradient off.
  if (!t.value().grad().defined()) return;
  if (!sums(t)) return tag_memory(t.value().grad(), MemoryKind::kGradient, t.name());
  require(micro_batches_done < micro_batches, "optimizer: a gradient of '", t.name(),
          "' outside of a step; this is a bug: begin_step comes first");
  auto& bucket = buckets[t.bucket];
  require(!bucket.launched, "optimizer: a second gradient of '", t.name(),
          "' came after its bucket was reduced; set parallel.overlap = false");
  const auto gradient = t.value().grad();
  t.value().mutable_grad().reset();
  if (flat) open_gradients(t.bucket);
  add_to_main(t, gradient);
  if (++t.firings == t.expected && t.of_one_chunk) ++bucket.ready;
  auto& chunk = chunks[static_cast<size_t>(t.chunk)];
  const bool last_pass = !pipelined && micro_batches_done + 1 == micro_batches;
  if (flat && sharding.overlap && !parted && groups.parameters == nullptr &&
      (last_pass || shards_gradients()))
    launch_ready(chunk);
}

void ShardedOptimizer::Impl::add_to_main(TrainedParameter& t, const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  if (!t.main.defined()) {
    t.main =
        at::empty(t.value().sizes(), t.value().options().dtype(at::kFloat).requires_grad(false));
    tag_memory(t.main, MemoryKind::kGradient, t.name());
  }
  if (gradient.is_sparse()) {
    if (!t.has_main) t.main.zero_();
    const auto rows = rows_of(gradient, t.name());
    t.main.index_add_(0, rows.numbers, rows.values.to(at::kFloat));
  } else if (!t.has_main) {
    t.main.copy_(gradient);
  } else {
    accumulate_(t.main, gradient.contiguous());
  }
  t.has_main = true;
}

/// Memory for a bucket's gradients of this backward; those of the one before that are still being
/// reduced go first.
void ShardedOptimizer::Impl::open_gradients(size_t index) {
  if (std::find(in_flight.begin(), in_flight.end(), index) != in_flight.end()) collect(index);
  if (!buckets[index].gradients.defined()) allocate_gradients(buckets[index]);
}

/// What no gradient is copied into is zeroed by `launch`.
void ShardedOptimizer::Impl::allocate_gradients(OptimizerBucket& bucket) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions(bucket.device).dtype(at::kFloat);
  bucket.gradients = shards_gradients() ? passing_memory(bucket.elements, options)
                                        : at::empty({bucket.elements}, options);
  for (size_t i = 0; i < bucket.slots.size(); ++i) {
    auto& t = trained[bucket.trained[i]];
    t.main = bucket.gradients.narrow(0, bucket.slots[i].offset, bucket.slots[i].length)
                 .view(t.value().sizes());
    tag_memory(t.main, MemoryKind::kGradient, t.name());
  }
}

void ShardedOptimizer::Impl::launch(size_t index) {
  constexpr size_t kMostInFlight = 2;  // bounds the memory of whole gradients
  const at::NoGradGuard no_grad;
  auto& bucket = buckets[index];
  open_gradients(index);
  int64_t end = 0;
  for (size_t i = 0; i < bucket.slots.size(); ++i) {
    const auto& slot = bucket.slots[i];
    auto& t = trained[bucket.trained[i]];
    if (!t.has_main) t.main.zero_();  // last step's, or another rank's
    if (shards_gradients()) {
      bucket.gradients.narrow(0, end, slot.offset - end).zero_();
      end = slot.offset + slot.length;
      t.reduced = t.reduced || t.has_main;
      t.has_main = false;
      t.main.reset();  // the bucket alone holds the memory
    }
  }
  const auto tag = fmt::format("bucket {}", index);
  bucket.launched = true;
  if (!shards_gradients() && shard_group().size() == 1) {
    bucket.reduction = replica_group().all_reduce_async(bucket.gradients, ReduceOp::kSum, tag);
    return;
  }
  if (shards_gradients()) bucket.gradients.narrow(0, end, bucket.elements - end).zero_();
  const auto mine = bucket.gradients.narrow(0, bucket.shard_begin, bucket.shard_size);
  bucket.reduction = shard_group().reduce_scatter_into_async(mine, bucket.gradients, tag);
  if (!shards_gradients()) return;
  in_flight.push_back(index);
  while (in_flight.size() > (sharding.overlap ? kMostInFlight : 0)) collect(in_flight.front());
}

/// Adds what a bucket's reduction has brought to the slice, and frees the bucket's gradients.
void ShardedOptimizer::Impl::collect(size_t index) {
  const at::NoGradGuard no_grad;
  auto& bucket = buckets[index];
  bucket.reduction.wait();
  std::erase(in_flight, index);
  const auto mine = bucket.gradients.narrow(0, bucket.shard_begin, bucket.shard_size);
  if (bucket.filled) {
    bucket.shard.add_(mine);
  } else {
    bucket.shard.copy_(mine);
  }
  bucket.filled = true;
  bucket.gradients.reset();
}

void ShardedOptimizer::Impl::launch_ready(OptimizerChunk& chunk) {
  while (chunk.next < chunk.buckets.size()) {
    const auto index = chunk.buckets[chunk.next];
    const auto& bucket = buckets[index];
    if (bucket.ready < static_cast<int64_t>(bucket.trained.size())) return;
    const auto counted = [this](size_t i) { return trained[i].comes_once; };
    if (!chunk.counts_known && !std::ranges::all_of(bucket.trained, counted)) return;
    ++chunk.next;
    launch(index);
  }
}

void ShardedOptimizer::Impl::launch_rest(OptimizerChunk& chunk) {
  while (chunk.next < chunk.buckets.size()) launch(chunk.buckets[chunk.next++]);
}

/// Backward has left this layer and those above it: with sharded parameters that, and not the count
/// of gradients, says when buckets are reduced, so that all ranks do it between the same gathers.
void ShardedOptimizer::Impl::leave_layer(size_t layer) {
  run_waiting();
  const std::lock_guard lock(mutex);
  if (!sharding.overlap || parted || micro_batches_done >= micro_batches) return;
  for (auto& chunk : chunks) {
    while (chunk.next < chunk.buckets.size() &&
           buckets[chunk.buckets[chunk.next]].lowest_layer == layer)
      launch(chunk.buckets[chunk.next++]);
  }
}

/// A backward is over: whoever is left is reduced, and the counting starts anew.
void ShardedOptimizer::Impl::finish_pass(OptimizerChunk& chunk) {
  if (shards_gradients()) {
    launch_rest(chunk);
    chunk.next = 0;
  }
  for (const auto index : chunk.buckets) {
    auto& bucket = buckets[index];
    bucket.ready = 0;
    if (shards_gradients()) bucket.launched = false;
    for (const auto i : bucket.trained) {
      auto& t = trained[i];
      t.expected = std::max(t.expected, t.firings);
      t.firings = 0;
    }
  }
  chunk.counts_known = true;
}

void ShardedOptimizer::Impl::finish_reductions() {
  if (!shards_gradients()) {
    for (auto& chunk : chunks) launch_rest(chunk);
    for (auto& bucket : buckets) bucket.reduction.wait();
  }
  while (!in_flight.empty()) collect(in_flight.front());
  if (shard_group().size() == 1 && !shards_gradients()) return;  // summed over replicas already
  for (size_t i = 0; i < buckets.size(); ++i) {
    buckets[i].reduction = replica_group().all_reduce_async(buckets[i].shard, ReduceOp::kSum,
                                                            fmt::format("shard of bucket {}", i));
  }
  for (auto& bucket : buckets) bucket.reduction.wait();
}

/// A parameter without a gradient is left out of the update only when it has none on any rank.
void ShardedOptimizer::Impl::agree_on_gradients() {
  for (auto& t : trained) t.in_step = has_gradient(t);
  if (!flat || trained.empty()) return;
  const auto count = static_cast<int64_t>(trained.size());
  auto flags = at::zeros({count}, at::kByte);
  auto* values = flags.data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i) values[i] = trained[static_cast<size_t>(i)].in_step ? 1 : 0;
  const auto on_device = flags.to(trained.front().value().device());
  gradient_group().all_reduce(on_device, ReduceOp::kMax, "parameters with gradients");
  if (on_device.is_meta()) return;  // a plan: the others have what this rank has
  flags = on_device.to(at::kCPU);
  values = flags.data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i) trained[static_cast<size_t>(i)].in_step = values[i] != 0;
}

std::vector<at::Tensor> ShardedOptimizer::Impl::gradient_parts(TrainedParameter& t) {
  if (flat) {
    std::vector<at::Tensor> parts;
    for (const auto& slice : buckets[t.bucket].slices) {
      if (&trained[slice.trained] == &t) parts.push_back(slice.gradient);
    }
    return parts;
  }
  if (!t.has_main) {
    const auto& grad = t.value().grad();
    t.main = at::zeros(t.value().sizes(), at::TensorOptions(t.value().device()).dtype(at::kFloat));
    // libtorch makes no sparse tensor dense that has no values; a plan counts the same memory.
    const auto dense = [&] {
      return grad.is_meta() ? at::empty_like(t.value(), grad.scalar_type()) : grad.to_dense();
    };
    if (grad.defined()) t.main.copy_(grad.is_sparse() ? dense() : grad);
    t.value().mutable_grad().reset();
    t.has_main = true;
  }
  return {t.main};
}

/// One exchange for all, of what this rank has of each gradient (the slices are the same on all
/// tensor ranks): each has a place in a flat fp32 tensor, key/value heads that several ranks hold
/// one place for each part of the whole.
void ShardedOptimizer::Impl::sum_over_tensor_ranks() {
  const at::NoGradGuard no_grad;
  auto* group = groups.tensor;
  if (group == nullptr || group->size() == 1) return;
  struct Place {
    at::Tensor gradient;
    int64_t begin;
  };
  std::vector<Place> places;
  int64_t elements = 0;
  for (auto& t : trained) {
    if (!t.summed || !t.in_step) continue;  // all tensor ranks see the same samples
    const int64_t parts = t.parameter->copies == 1 ? 1 : group->size() / t.parameter->copies;
    const int64_t own = parts == 1 ? 0 : group->rank() / t.parameter->copies;
    for (const auto& gradient : gradient_parts(t)) {
      places.push_back({gradient, elements + own * gradient.numel()});
      elements += parts * gradient.numel();
    }
  }
  if (elements == 0) return;
  const auto sums = at::zeros({elements}, places.front().gradient.options());
  const auto place_of = [&](const Place& place) {
    return sums.narrow(0, place.begin, place.gradient.numel()).view(place.gradient.sizes());
  };
  for (const auto& place : places) place_of(place).copy_(place.gradient);
  group->all_reduce(sums, ReduceOp::kSum, "gradients of what all tensor ranks hold");
  for (const auto& place : places) place.gradient.copy_(place_of(place));
}

/// The same part of every rank that shares the parameter is added up.
void ShardedOptimizer::Impl::sum_shared() {
  const at::NoGradGuard no_grad;
  for (const auto& shared : groups.shared) {
    const auto it = by_name.find(shared.parameter);
    if (it == by_name.end() || shared.group->size() == 1) continue;
    auto& t = trained[it->second];
    const auto flag =
        at::full({1}, t.in_step ? 1 : 0, at::TensorOptions(t.value().device()).dtype(at::kInt));
    shared.group->all_reduce(flag, ReduceOp::kMax, "shared parameter with a gradient");
    if (!flag.is_meta()) t.in_step = flag.item<int>() != 0;
    if (!t.in_step) continue;
    for (const auto& gradient : gradient_parts(t)) {
      shared.group->all_reduce(gradient, ReduceOp::kSum, fmt::format("gradient of '{}'", t.name()));
    }
  }
}

void ShardedOptimizer::Impl::complete_step() {
  if (groups.parameters != nullptr) groups.parameters->release_all();
  if (flat) finish_reductions();
  agree_on_gradients();
  sum_over_tensor_ranks();
  sum_shared();
}

void ShardedOptimizer::Impl::clear_gradients() {
  if (groups.waiting) groups.waiting->drop_waiting();  // of a step that was broken off
  while (!in_flight.empty()) collect(in_flight.front());
  for (auto& t : trained) {
    t.value().mutable_grad().reset();
    t.has_main = t.reduced = t.in_step = false;
    t.firings = 0;
  }
  for (auto& bucket : buckets) {
    bucket.ready = 0;
    bucket.launched = bucket.filled = false;
    if (!shards_gradients() || !bucket.gradients.defined()) continue;
    bucket.gradients.reset();  // of a step that was broken off
    for (const auto i : bucket.trained) trained[i].main.reset();
  }
  for (auto& chunk : chunks) chunk.next = 0;
  pipelined = parted = false;
  micro_batches = micro_batches_done = 0;
  sum_of_squares = -1;
  if (groups.parameters != nullptr) groups.parameters->release_all();
}

/// The gradient of one parameter where it lies: dense, or the values of its rows.
at::Tensor ShardedOptimizer::Impl::sum(const TrainedParameter& t) const {
  if (t.has_main) return t.main;
  const auto& grad = t.value().grad();
  return grad.is_sparse() ? rows_of(grad, t.name()).values : grad.contiguous();
}

}  // namespace triptych

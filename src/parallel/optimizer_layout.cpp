// What of parameters and states lies where.

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/error.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_ledger.h"
#include "kernels/meta_memory.h"
#include "parallel/parameter_shards.h"
#include "parallel/sharded_optimizer_impl.h"

namespace triptych {

void ShardedOptimizer::Impl::take(const ParameterList& parameters) {
  // A chunk's backward comes before those of the chunks before it: a gradient is complete with the
  // first of the chunks that use the parameter.
  std::map<std::string, std::pair<int64_t, bool>> chunk_of;  // and whether it is the only one
  for (size_t c = 0; c < groups.chunks.size(); ++c) {
    const auto chunk = static_cast<int64_t>(c);
    for (const auto& p : groups.chunks[c]) {
      const auto [it, fresh] = chunk_of.try_emplace(p->name, chunk, true);
      if (!fresh && it->second.first != chunk) it->second.second = false;
    }
  }
  // the reverse of the order in which layers were made: about the order in which gradients come
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {
    const auto& p = *it;
    if (!p->trained || !p->on_stage) continue;
    const auto dtype = p->value.scalar_type();
    require(dtype == at::kFloat || dtype == at::kBFloat16, "optimizer: '", p->name, "' is ",
            c10::toString(dtype), "; trained parameters are float32 or bfloat16");
    require(!p->value.is_meta() || planning(), "optimizer: '", p->name, "' has no values yet");
    if (!p->value.is_contiguous()) p->value.set_data(p->value.detach().contiguous());
    p->value.set_requires_grad(true);
    const bool decays = adamw.decay_all || p->full_shape.size() >= 2;
    TrainedParameter t{.parameter = p};
    t.weight_decay = decays ? adamw.weight_decay : 0;
    // ZeRO-0's norm is taken over ranks that hold no copies of each other (OptimizerGroups::norm)
    const bool first_replica = sharding.zero == 0 || replica_group().rank() == 0;
    t.counted = p->first_copy && is_owner(*p) && first_replica;
    t.summed = p->placement.sum_over_tensor || p->copies > 1;
    t.comes_once = groups.come_once.contains(p->name);
    for (const auto& shared : groups.shared) {
      if (shared.parameter == p->name && shared.group->size() > 1) t.shared = shared.group;
    }
    const auto chunk = chunk_of.find(p->name);
    if (chunk != chunk_of.end()) std::tie(t.chunk, t.of_one_chunk) = chunk->second;
    require(by_name.emplace(p->name, trained.size()).second,
            "optimizer: two parameters are called '", p->name, "'");
    trained.push_back(std::move(t));
  }
}

void ShardedOptimizer::Impl::make_buckets() {
  chunks.resize(std::max<size_t>(1, groups.chunks.size()));
  if (flat && groups.parameters != nullptr) return add_unit_buckets();
  const int64_t ranks = shard_group().size();
  int64_t limit = sharding.bucket_elements;
  if (limit <= 0) limit = std::max<int64_t>(40'000'000, 1'000'000 * ranks);
  if (!flat) limit = std::numeric_limits<int64_t>::max();  // one bucket a dtype: only its states

  // A parameter that stages share, and those that tensor ranks sum gradients of, have buckets of
  // their own, so that the slices are the same on all ranks that add them up.
  using Kind = std::tuple<int64_t, bool, at::ScalarType, std::string>;
  const auto kind_of = [](const TrainedParameter& t) {
    return Kind(t.chunk, t.summed, t.value().scalar_type(),
                t.shared != nullptr ? t.name() : std::string());
  };
  std::vector<Kind> kinds;
  for (const auto& t : trained) {
    if (std::find(kinds.begin(), kinds.end(), kind_of(t)) == kinds.end())
      kinds.push_back(kind_of(t));
  }
  for (const auto& kind : kinds) {
    std::vector<size_t> members;
    std::vector<int64_t> lengths;
    for (size_t i = 0; i < trained.size(); ++i) {
      if (kind_of(trained[i]) != kind) continue;
      members.push_back(i);
      lengths.push_back(trained[i].value().numel());
    }
    for (const auto& layout : plan_buckets(lengths, limit, ranks).buckets) {
      add_bucket(members, layout);
    }
  }
}

at::Tensor ShardedOptimizer::Impl::zero_state(const OptimizerBucket& bucket,
                                              at::ScalarType dtype) const {
  const int64_t n = bucket.shard_size;
  if (bucket.device.is_cpu()) return lazy_zeros({n}, dtype);
  const auto options = at::TensorOptions().dtype(dtype);
  if (offloads(bucket) && bucket.device.is_meta()) {
    const auto state = at::zeros({n}, options.device(bucket.device));
    forget_planned_memory(state);  // lies in the host's memory
    return state;
  }
  // pinned: copies to and from the device run beside its work
  if (offloads(bucket)) return at::zeros({n}, options.pinned_memory(true));
  return at::zeros({n}, options.device(bucket.device));
}

void ShardedOptimizer::Impl::add_bucket(const std::vector<size_t>& members,
                                        const FlatLayout::Bucket& layout) {
  OptimizerBucket bucket{.slots = layout.slots, .elements = layout.elements};
  for (const auto& slot : layout.slots) bucket.trained.push_back(members[slot.parameter]);
  const auto& first = trained[bucket.trained.front()];
  bucket.dtype = first.value().scalar_type();
  bucket.device = first.value().device();
  bucket.shard_size = layout.elements / shard_group().size();
  bucket.shard_begin = bucket.shard_size * shard_group().rank();
  at::Tensor shard_weights;
  if (flat) {
    bucket.weights = at::zeros({layout.elements}, first.value().options().requires_grad(false));
    tag_memory(bucket.weights, MemoryKind::kParameter);
    for (size_t i = 0; i < bucket.slots.size(); ++i) {
      auto& value = trained[bucket.trained[i]].value();
      const auto place = bucket.weights.narrow(0, bucket.slots[i].offset, bucket.slots[i].length)
                             .view(value.sizes());
      place.copy_(value.detach());
      value.set_data(place);
      tag_memory(place, MemoryKind::kParameter, trained[bucket.trained[i]].name());
    }
    shard_weights = bucket.weights.narrow(0, bucket.shard_begin, bucket.shard_size);
    if (shards_gradients()) {
      bucket.shard =
          at::zeros({bucket.shard_size}, at::TensorOptions(bucket.device).dtype(at::kFloat));
      tag_memory(bucket.shard, MemoryKind::kGradient);
    } else {
      allocate_gradients(bucket);
      bucket.gradients.zero_();
      bucket.shard = bucket.gradients.narrow(0, bucket.shard_begin, bucket.shard_size);
    }
  }
  add_slices(bucket, shard_weights);
}

/// With sharded parameters: a bucket for each unit that is trained, the last layer's first.
void ShardedOptimizer::Impl::add_unit_buckets() {
  const auto& units = groups.parameters->units();
  for (auto unit = units.rbegin(); unit != units.rend(); ++unit) {
    if (!unit->trained) continue;
    OptimizerBucket bucket{.slots = unit->layout.slots, .elements = unit->layout.elements};
    for (const auto& slot : bucket.slots) {
      const auto it = by_name.find(unit->parameters[slot.parameter]->name);
      require(it != by_name.end(), "optimizer: '", unit->parameters[slot.parameter]->name,
              "' is sharded as trained, but is not trained");
      bucket.trained.push_back(it->second);
    }
    bucket.dtype = unit->shard.scalar_type();
    bucket.device = unit->shard.device();
    bucket.shard_size = unit->shard.numel();
    bucket.shard_begin = unit->begin;
    bucket.lowest_layer = unit->lowest_layer;
    bucket.shard =
        at::zeros({bucket.shard_size}, at::TensorOptions(bucket.device).dtype(at::kFloat));
    tag_memory(bucket.shard, MemoryKind::kGradient);
    add_slices(bucket, unit->shard);
  }
  for (auto& chunk : chunks) {  // a unit that several layers use is left with the lowest of them
    std::stable_sort(chunk.buckets.begin(), chunk.buckets.end(), [this](size_t a, size_t b) {
      return buckets[a].lowest_layer > buckets[b].lowest_layer;
    });
  }
}

/// @param shard_weights  this rank's elements of the weights; undefined on one rank, which holds
///   them where they are.
void ShardedOptimizer::Impl::add_slices(OptimizerBucket& bucket, const at::Tensor& shard_weights) {
  bucket.states.exp_avg = zero_state(bucket, at::kFloat);
  bucket.states.exp_avg_sq = zero_state(bucket, at::kFloat);
  if (bucket.dtype == at::kBFloat16) bucket.states.low = zero_state(bucket, at::kShort);
  for (size_t i = 0; i < bucket.slots.size(); ++i) {
    auto& t = trained[bucket.trained[i]];
    t.bucket = buckets.size();
    const auto part =
        intersect(bucket.slots[i], bucket.shard_begin, bucket.shard_begin + bucket.shard_size);
    if (part.length == 0) continue;
    const auto of_shard = [&](const at::Tensor& shard) {
      return shard.defined() ? shard.narrow(0, part.in_range, part.length) : at::Tensor();
    };
    const auto state = [&](const at::Tensor& shard) {
      auto own = of_shard(shard);
      if (own.defined()) tag_memory(own, MemoryKind::kOptimizerState, t.name());
      return own;
    };
    bucket.slices.push_back(
        {.trained = bucket.trained[i],
         .begin = part.in_parameter,
         .end = part.in_parameter + part.length,
         .in_shard = part.in_range,
         .weight = shard_weights.defined()
                       ? of_shard(shard_weights)
                       : t.value().detach().view(-1).narrow(0, part.in_parameter, part.length),
         .exp_avg = state(bucket.states.exp_avg),
         .exp_avg_sq = state(bucket.states.exp_avg_sq),
         .low = state(bucket.states.low),
         .gradient = of_shard(bucket.shard)});
  }
  const auto chunk = static_cast<size_t>(trained[bucket.trained.front()].chunk);
  chunks[chunk].buckets.push_back(buckets.size());
  buckets.push_back(std::move(bucket));
}

}  // namespace triptych

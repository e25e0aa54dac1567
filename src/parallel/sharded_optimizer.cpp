#include "parallel/sharded_optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <tuple>

#include "base/error.h"
#include "base/format.h"
#include "kernels/adamw.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_ledger.h"
#include "kernels/memory_scope.h"
#include "parallel/flat_layout.h"
#include "parallel/gradient_hook.h"
#include "parallel/process_context.h"

namespace triptych {

namespace {

/// A trained parameter and what has happened to its gradient.
struct Trained {
  ParameterPtr parameter;
  double weight_decay = 0;
  bool counted = true;      ///< in the norm; false for a copy that another tensor rank counts
  bool summed = false;      ///< over the tensor ranks, after the last backward
  int64_t steps = 0;        ///< updates of this parameter
  bool has_main = false;    ///< `main` holds a gradient of this step
  bool in_step = false;     ///< some rank has a gradient of this step
  int64_t firings = 0;      ///< of the hook, in this micro-batch
  int64_t expected = 1;     ///< firings of a complete backward, the most seen so far
  bool finished = false;    ///< in a pipelined step: no more gradients will come
  Group* shared = nullptr;  ///< pipeline ranks that use it as well; null: none
  size_t bucket = 0;
  at::Tensor main;  ///< fp32 sum over micro-batches and ranks; a view of the bucket's, or undefined
  at::Tensor touched;  ///< rows with moments, while all gradients were row-sparse
  const std::string& name() const { return parameter->name; }
  at::Tensor& value() const { return parameter->value; }
};

/// The part of one parameter that this rank updates, flat, with its state.
struct Piece {
  size_t trained = 0;
  int64_t begin = 0, end = 0;  ///< elements of the parameter
  at::Tensor weight, exp_avg, exp_avg_sq, low;
  at::Tensor gradient;  ///< view of the bucket's; undefined on one rank
};

struct Bucket {
  at::Tensor weights, gradients;  ///< undefined on one rank: nothing is copied there
  std::vector<size_t> trained;
  std::vector<Piece> pieces;
  int64_t shard_begin = 0, shard_size = 0;
  bool summed = false;  ///< as its parameters: launched after their sums over the tensor ranks
  int64_t ready = 0;    ///< parameters whose gradient is complete in the last micro-batch
  bool launched = false;
  Pending reduction, gathering;
};

at::Tensor zero_state(int64_t elements, at::ScalarType dtype, at::Device device) {
  if (device.is_cpu()) return lazy_zeros({elements}, dtype);
  return at::zeros({elements}, at::TensorOptions(device).dtype(dtype));
}

/// Row numbers and rows of a coalesced sparse gradient of an embedding.
struct Rows {
  at::Tensor numbers, values;
};
Rows rows_of(const at::Tensor& sparse, const std::string& name) {
  const auto coalesced = sparse.is_coalesced() ? sparse : sparse.coalesce();
  require(coalesced.sparse_dim() == 1, "optimizer: the sparse gradient of '", name, "' has ",
          coalesced.sparse_dim(), " sparse dims; only rows may be sparse");
  return {coalesced._indices().select(0, 0).contiguous(), coalesced._values().contiguous()};
}

}  // namespace

struct ShardedOptimizer::Impl {
  AdamWSettings adamw;
  ShardingSettings sharding;
  OptimizerGroups groups;
  Group alone;
  bool flat = false;  ///< several ranks: flat buckets
  std::vector<Trained> trained;
  std::map<std::string, size_t> by_name;
  std::vector<Bucket> buckets;
  int64_t steps = 0;
  int64_t micro_batches = 0, micro_batches_done = 0;
  bool pipelined = false;     ///< of this step: nothing is launched before finish_gradients
  bool counts_known = false;  ///< a whole backward has been seen: hooks may launch buckets
  size_t next_bucket = 0;     ///< buckets are launched in this order on every rank
  double sum_of_squares = -1;
  std::mutex mutex;  ///< hooks run on autograd's thread of the parameter's device

  Group& gradient_group() const { return *groups.gradients; }
  bool is_owner(const Parameter& p) const {
    return p.owner == groups.coordinates[MeshDim::kPipeline];
  }
  bool last_micro_batch() const { return micro_batches_done + 1 == micro_batches; }
  bool complete() const { return micro_batches > 0 && micro_batches_done == micro_batches; }

  /// Whether gradients go from autograd into fp32 sums of our own.
  bool sums(const Trained& t) const {
    return flat || (micro_batches > 1 && t.value().scalar_type() != at::kFloat);
  }

  void take(const ParameterList& parameters);
  void make_buckets();
  void make_bucket(const FlatLayout::Bucket& layout, const std::vector<size_t>& members);
  void install_hooks();
  void on_gradient(size_t index);
  void add_to_main(Trained& t, const at::Tensor& gradient);
  void launch(Bucket& bucket);
  void launch_ready_buckets();
  void sum_over_tensor_ranks();
  void finish_reductions();
  void agree_on_gradients();
  void sum_shared();
  void complete_step();
  bool has_gradient(const Trained& t) const {
    return t.has_main || (!flat && t.value().grad().defined());
  }
  at::Tensor sum(const Trained& t) const;
  double local_sum_of_squares() const;
  void update(Bucket& bucket, double learning_rate, double factor);
  AdamWTensor adamw_tensor(const Piece& piece);
  void clear_gradients();
  Pending gather(Bucket& bucket);
  const Piece& piece(const StateRange& range) const;
};

// ---------------------------------------------------------------------------------------- set-up

void ShardedOptimizer::Impl::take(const ParameterList& parameters) {
  // the reverse of the order in which layers were made: about the order in which gradients come
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {
    const auto& p = *it;
    if (!p->trained || !p->on_stage) continue;
    const auto dtype = p->value.scalar_type();
    require(dtype == at::kFloat || dtype == at::kBFloat16, "optimizer: '", p->name, "' is ",
            c10::toString(dtype), "; trained parameters are float32 or bfloat16");
    require(!p->value.is_meta(), "optimizer: '", p->name, "' has no values yet");
    if (!p->value.is_contiguous()) p->value.set_data(p->value.detach().contiguous());
    p->value.set_requires_grad(true);
    const bool decays = adamw.decay_all || p->full_shape.size() >= 2;
    Trained t{.parameter = p};
    t.weight_decay = decays ? adamw.weight_decay : 0;
    t.counted = p->first_copy && is_owner(*p);
    t.summed = p->placement.sum_over_tensor || p->copies > 1;
    for (const auto& shared : groups.shared) {
      if (shared.parameter == p->name && shared.group->size() > 1) t.shared = shared.group;
    }
    require(by_name.emplace(p->name, trained.size()).second,
            "optimizer: two parameters are called '", p->name, "'");
    trained.push_back(std::move(t));
  }
}

void ShardedOptimizer::Impl::make_buckets() {
  const int64_t ranks = gradient_group().size();
  int64_t limit = sharding.bucket_elements;
  if (limit <= 0) limit = std::max<int64_t>(40'000'000, 1'000'000 * ranks);
  if (!flat) limit = std::numeric_limits<int64_t>::max();  // one bucket a dtype: only its states

  // Those that wait for the tensor ranks come last: buckets are launched in order. A parameter that
  // stages share has buckets of its own, so that its shards are the same on all its ranks.
  using Kind = std::tuple<bool, at::ScalarType, std::string>;
  const auto kind_of = [](const Trained& t) {
    return Kind(t.summed, t.value().scalar_type(), t.shared != nullptr ? t.name() : std::string());
  };
  std::vector<Kind> kinds;
  for (const auto& t : trained) {
    if (std::find(kinds.begin(), kinds.end(), kind_of(t)) == kinds.end())
      kinds.push_back(kind_of(t));
  }
  std::stable_partition(kinds.begin(), kinds.end(),
                        [](const auto& kind) { return !std::get<bool>(kind); });
  for (const auto& kind : kinds) {
    std::vector<size_t> members;
    std::vector<int64_t> lengths;
    for (size_t i = 0; i < trained.size(); ++i) {
      if (kind_of(trained[i]) != kind) continue;
      members.push_back(i);
      lengths.push_back(trained[i].value().numel());
    }
    for (const auto& layout : plan_buckets(lengths, limit, ranks).buckets) {
      make_bucket(layout, members);
    }
  }
}

void ShardedOptimizer::Impl::make_bucket(const FlatLayout::Bucket& layout,
                                         const std::vector<size_t>& members) {
  Bucket bucket;
  const bool sharded = flat && sharding.zero > 0;
  bucket.shard_size = sharded ? layout.elements / gradient_group().size() : layout.elements;
  bucket.shard_begin = sharded ? bucket.shard_size * gradient_group().rank() : 0;

  const auto& first = trained[members[layout.slots.front().parameter]].value();
  const auto device = first.device();
  const bool split_master = first.scalar_type() == at::kBFloat16;
  bucket.summed = trained[members[layout.slots.front().parameter]].summed;
  if (flat) {
    bucket.weights = at::zeros({layout.elements}, first.options().requires_grad(false));
    bucket.gradients = at::zeros({layout.elements}, at::TensorOptions(device).dtype(at::kFloat));
    tag_memory(bucket.weights, MemoryKind::kParameter);
    tag_memory(bucket.gradients, MemoryKind::kGradient);
  }
  const auto exp_avg = zero_state(bucket.shard_size, at::kFloat, device);
  const auto exp_avg_sq = zero_state(bucket.shard_size, at::kFloat, device);
  const auto low = split_master ? zero_state(bucket.shard_size, at::kShort, device) : at::Tensor();

  for (const auto& slot : layout.slots) {
    const size_t index = members[slot.parameter];
    auto& t = trained[index];
    t.bucket = buckets.size();
    bucket.trained.push_back(index);
    if (flat) {
      const auto shape = t.value().sizes().vec();
      const auto place = bucket.weights.narrow(0, slot.offset, slot.length).view(shape);
      place.copy_(t.value().detach());
      t.value().set_data(place);
      t.main = bucket.gradients.narrow(0, slot.offset, slot.length).view(shape);
      tag_memory(place, MemoryKind::kParameter, t.name());
      tag_memory(t.main, MemoryKind::kGradient, t.name());
    }
    const auto part = intersect(slot, bucket.shard_begin, bucket.shard_begin + bucket.shard_size);
    if (part.length == 0) continue;
    const auto of_shard = [&](const at::Tensor& shard) {
      if (!shard.defined()) return at::Tensor();
      auto state = shard.narrow(0, part.in_range, part.length);
      tag_memory(state, MemoryKind::kOptimizerState, t.name());
      return state;
    };
    bucket.pieces.push_back(
        {.trained = index,
         .begin = part.in_parameter,
         .end = part.in_parameter + part.length,
         .weight = t.value().detach().view(-1).narrow(0, part.in_parameter, part.length),
         .exp_avg = of_shard(exp_avg),
         .exp_avg_sq = of_shard(exp_avg_sq),
         .low = of_shard(low),
         .gradient =
             flat ? t.main.view(-1).narrow(0, part.in_parameter, part.length) : at::Tensor()});
  }
  buckets.push_back(std::move(bucket));
}

void ShardedOptimizer::Impl::install_hooks() {
  for (size_t i = 0; i < trained.size(); ++i) {
    set_gradient_hook(trained[i].value(), [this, i] { on_gradient(i); });
  }
}

// ------------------------------------------------------------------------------------- gradients

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
  add_to_main(t, gradient);
  if (++t.firings == t.expected) ++bucket.ready;
  if (flat && sharding.overlap && counts_known && !pipelined && last_micro_batch())
    launch_ready_buckets();
}

void ShardedOptimizer::Impl::add_to_main(Trained& t, const at::Tensor& gradient) {
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

void ShardedOptimizer::Impl::launch(Bucket& bucket) {
  const at::NoGradGuard no_grad;
  for (const auto index : bucket.trained) {
    if (!trained[index].has_main) trained[index].main.zero_();  // last step's, or another rank's
  }
  const auto tag = fmt::format("bucket {}", &bucket - buckets.data());
  const auto shard = bucket.gradients.narrow(0, bucket.shard_begin, bucket.shard_size);
  bucket.reduction = sharding.zero > 0
                         ? gradient_group().reduce_scatter_into_async(shard, bucket.gradients, tag)
                         : gradient_group().all_reduce_async(bucket.gradients, ReduceOp::kSum, tag);
  bucket.launched = true;
}

void ShardedOptimizer::Impl::launch_ready_buckets() {
  while (next_bucket < buckets.size() && !buckets[next_bucket].summed &&
         buckets[next_bucket].ready == static_cast<int64_t>(buckets[next_bucket].trained.size())) {
    launch(buckets[next_bucket++]);
  }
}

/// One exchange for all: each gradient has a place in a flat fp32 tensor, key/value heads that
/// several ranks hold one place for each part of the whole.
void ShardedOptimizer::Impl::sum_over_tensor_ranks() {
  const at::NoGradGuard no_grad;
  auto* group = groups.tensor;
  if (group == nullptr || group->size() == 1) return;
  struct Place {
    Trained* trained;
    int64_t begin;
  };
  std::vector<Place> places;
  int64_t elements = 0;
  for (auto& t : trained) {
    if (!t.summed) continue;
    const int64_t parts = t.parameter->copies == 1 ? 1 : group->size() / t.parameter->copies;
    const int64_t own = parts == 1 ? 0 : group->rank() / t.parameter->copies;
    places.push_back({&t, elements + own * t.value().numel()});
    elements += parts * t.value().numel();
  }
  if (places.empty()) return;
  const auto device = trained.front().value().device();
  const auto sums = at::zeros({elements}, at::TensorOptions(device).dtype(at::kFloat));
  const auto place_of = [&](const Place& place) {
    return sums.narrow(0, place.begin, place.trained->value().numel())
        .view(place.trained->value().sizes());
  };
  for (const auto& place : places) {
    if (has_gradient(*place.trained)) place_of(place).copy_(sum(*place.trained));
  }
  group->all_reduce(sums, ReduceOp::kSum, "gradients of what all tensor ranks hold");
  for (const auto& place : places) {
    auto& t = *place.trained;
    if (!has_gradient(t)) continue;  // then on no tensor rank: all see the same samples
    if (flat) {
      t.main.copy_(place_of(place));
    } else {
      t.main = place_of(place);
    }
    t.has_main = true;
  }
}

void ShardedOptimizer::Impl::finish_reductions() {
  while (next_bucket < buckets.size()) launch(buckets[next_bucket++]);
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
  flags = on_device.to(at::kCPU);
  values = flags.data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; ++i) trained[static_cast<size_t>(i)].in_step = values[i] != 0;
}

/// After the sums over the gradient group, where every rank has its shard: the same shard of every
/// rank that shares the parameter is added up.
void ShardedOptimizer::Impl::sum_shared() {
  const at::NoGradGuard no_grad;
  for (const auto& shared : groups.shared) {
    const auto it = by_name.find(shared.parameter);
    if (it == by_name.end() || shared.group->size() == 1) continue;
    auto& t = trained[it->second];
    const auto device = t.value().device();
    const auto flag = at::full({1}, t.in_step ? 1 : 0, at::TensorOptions(device).dtype(at::kInt));
    shared.group->all_reduce(flag, ReduceOp::kMax, "shared parameter with a gradient");
    t.in_step = flag.item<int>() != 0;
    if (!t.in_step) continue;
    const auto tag = fmt::format("gradient of '{}'", t.name());
    if (flat) {
      for (const auto& piece : buckets[t.bucket].pieces) {
        shared.group->all_reduce(piece.gradient, ReduceOp::kSum, tag);
      }
      continue;
    }
    if (!t.has_main) {
      const auto& grad = t.value().grad();
      t.main = at::zeros(t.value().sizes(), at::TensorOptions(device).dtype(at::kFloat));
      if (grad.defined()) t.main.copy_(grad.is_sparse() ? grad.to_dense() : grad);
      t.value().mutable_grad().reset();
      t.has_main = true;
    }
    shared.group->all_reduce(t.main, ReduceOp::kSum, tag);
  }
}

void ShardedOptimizer::Impl::complete_step() {
  sum_over_tensor_ranks();
  if (flat) finish_reductions();
  agree_on_gradients();
  sum_shared();
}

void ShardedOptimizer::Impl::clear_gradients() {
  for (auto& t : trained) {
    t.value().mutable_grad().reset();
    t.has_main = t.in_step = t.finished = false;
    t.firings = 0;
  }
  for (auto& bucket : buckets) {
    bucket.ready = 0;
    bucket.launched = false;
  }
  next_bucket = 0;
  pipelined = false;
  micro_batches = micro_batches_done = 0;
  sum_of_squares = -1;
}

/// The gradient of one parameter where it lies: dense, or the values of its rows.
at::Tensor ShardedOptimizer::Impl::sum(const Trained& t) const {
  if (t.has_main) return t.main;
  const auto& grad = t.value().grad();
  return grad.is_sparse() ? rows_of(grad, t.name()).values : grad.contiguous();
}

double ShardedOptimizer::Impl::local_sum_of_squares() const {
  std::vector<at::Tensor> gradients;
  for (const auto& bucket : buckets) {
    for (const auto& piece : bucket.pieces) {
      const auto& t = trained[piece.trained];
      if (!t.counted || !t.in_step) continue;
      gradients.push_back(flat ? piece.gradient : sum(t));
    }
  }
  return triptych::sum_of_squares(gradients);
}

// ---------------------------------------------------------------------------------------- update

AdamWTensor ShardedOptimizer::Impl::adamw_tensor(const Piece& piece) {
  auto& t = trained[piece.trained];
  AdamWTensor a{.weight = piece.weight,
                .exp_avg = piece.exp_avg,
                .exp_avg_sq = piece.exp_avg_sq,
                .low = piece.low,
                .weight_decay = t.weight_decay};
  if (flat) {
    a.grad = piece.gradient;
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

void ShardedOptimizer::Impl::update(Bucket& bucket, double learning_rate, double factor) {
  std::map<int64_t, std::vector<AdamWTensor>> by_count;  // nearly always one entry
  for (const auto& piece : bucket.pieces) {
    const auto& t = trained[piece.trained];
    if (t.in_step) by_count[t.steps + 1].push_back(adamw_tensor(piece));
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

Pending ShardedOptimizer::Impl::gather(Bucket& bucket) {
  return gradient_group().all_gather_into_async(
      bucket.weights, bucket.weights.narrow(0, bucket.shard_begin, bucket.shard_size),
      fmt::format("weights of bucket {}", &bucket - buckets.data()));
}

const Piece& ShardedOptimizer::Impl::piece(const StateRange& range) const {
  const auto it = by_name.find(range.name);
  require(it != by_name.end(), "optimizer: no trained parameter '", range.name, "'");
  for (const auto& piece : buckets[trained[it->second].bucket].pieces) {
    if (piece.trained == it->second && piece.begin == range.begin && piece.end == range.end) {
      return piece;
    }
  }
  fail("optimizer: this rank does not hold exactly [", range.begin, ", ", range.end, ") of '",
       range.name, "'");
}

// -------------------------------------------------------------------------------- public interface

ShardedOptimizer::ShardedOptimizer(const ParameterList& parameters, const AdamWSettings& adamw,
                                   const ShardingSettings& sharding, const OptimizerGroups& groups)
    : impl_(std::make_unique<Impl>()) {
  require<UsageError>(sharding.zero == 0 || sharding.zero == 1, "parallel.zero = ", sharding.zero,
                      " is not supported; allowed: 0, 1");
  const at::NoGradGuard no_grad;
  const MemoryScope memory(MemoryPhase::kLoad, MemoryKind::kOptimizerState);
  auto& self = *impl_;
  self.adamw = adamw;
  self.sharding = sharding;
  self.groups = groups;
  if (self.groups.gradients == nullptr) self.groups.gradients = &self.alone;
  if (self.groups.norm == nullptr) self.groups.norm = &self.alone;
  self.flat = self.gradient_group().size() > 1;
  self.take(parameters);
  self.make_buckets();
  self.install_hooks();
}

ShardedOptimizer::~ShardedOptimizer() {
  for (const auto& t : impl_->trained) set_gradient_hook(t.value(), nullptr);
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
  for (auto& t : self.trained) {
    t.expected = std::max(t.expected, t.firings);
    t.firings = 0;
  }
  for (auto& bucket : self.buckets) bucket.ready = 0;
  self.counts_known = true;
  ++self.micro_batches_done;
  if (self.complete()) self.complete_step();
}

void ShardedOptimizer::begin_pipelined_step(int64_t micro_batches) {
  begin_step(micro_batches);
  impl_->pipelined = true;
}

void ShardedOptimizer::finish_gradients(const ParameterList& parameters) {
  auto& self = *impl_;
  const std::lock_guard lock(self.mutex);
  require(self.pipelined, "optimizer: finish_gradients needs begin_pipelined_step");
  for (const auto& p : parameters) {
    const auto it = self.by_name.find(p->name);
    if (it == self.by_name.end() || self.trained[it->second].finished) continue;
    auto& t = self.trained[it->second];
    t.finished = true;
    ++self.buckets[t.bucket].ready;
  }
  if (self.flat && self.sharding.overlap) self.launch_ready_buckets();
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
    self.sum_of_squares = sum.item<double>();
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
  for (auto bucket = self.buckets.rbegin(); bucket != self.buckets.rend(); ++bucket) {
    self.update(*bucket, request.learning_rate, request.scale * clip);
    if (self.flat && self.sharding.zero > 0) bucket->gathering = self.gather(*bucket);
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
    add(bucket.gradients);
    for (const auto& piece : bucket.pieces) {
      add(piece.exp_avg);
      add(piece.exp_avg_sq);
      add(piece.low);
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
  const bool writer = self.sharding.zero > 0 || self.gradient_group().rank() == 0;
  std::vector<StateRange> ranges;
  for (const auto& bucket : self.buckets) {
    for (const auto& piece : bucket.pieces) {
      const auto& t = self.trained[piece.trained];
      ranges.push_back({t.name(), piece.begin, piece.end,
                        writer && t.parameter->first_copy && self.is_owner(*t.parameter)});
    }
  }
  return ranges;
}

at::Tensor ShardedOptimizer::state(const StateRange& range, StateKind kind) const {
  const at::NoGradGuard no_grad;
  const auto& piece = impl_->piece(range);
  switch (kind) {
    case StateKind::kExpAvg:
      return piece.exp_avg;
    case StateKind::kExpAvgSq:
      return piece.exp_avg_sq;
    case StateKind::kMaster:
      break;
  }
  return piece.low.defined() ? join_master(piece.weight, piece.low) : piece.weight;
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
  for (const auto& piece : self.buckets[t.bucket].pieces) {
    const int64_t from = std::max(begin, piece.begin), to = std::min(end, piece.end);
    if (piece.trained != it->second || from >= to) continue;
    const auto given = values.reshape(-1).narrow(0, from - begin, to - from).to(at::kFloat);
    const auto own = [&](const at::Tensor& held) {
      return held.narrow(0, from - piece.begin, to - from);
    };
    if (kind == StateKind::kExpAvg) {
      own(piece.exp_avg).copy_(given);
    } else if (kind == StateKind::kExpAvgSq) {
      own(piece.exp_avg_sq).copy_(given);
    } else if (piece.low.defined()) {
      const auto split = split_master(given.to(piece.weight.device()));
      own(piece.weight).copy_(split.weight);
      own(piece.low).copy_(split.low);
    } else {
      own(piece.weight).copy_(given);
    }
  }
}

void ShardedOptimizer::finish_loading() {
  const at::NoGradGuard no_grad;
  if (!impl_->flat || impl_->sharding.zero == 0) return;
  for (auto& bucket : impl_->buckets) impl_->gather(bucket).wait();
}

at::Tensor ShardedOptimizer::gradient(const StateRange& range) const {
  const at::NoGradGuard no_grad;
  const auto& self = *impl_;
  require(self.complete(), "optimizer: gradients are complete after the last micro-batch");
  const auto& piece = self.piece(range);
  const auto& t = self.trained[piece.trained];
  if (self.flat) return piece.gradient;
  if (t.has_main) return t.main.view(-1).narrow(0, piece.begin, piece.end - piece.begin);
  const auto& grad = t.value().grad();
  if (!grad.defined()) return at::zeros({piece.end - piece.begin}, piece.exp_avg.options());
  return (grad.is_sparse() ? grad.to_dense() : grad).to(at::kFloat).reshape(-1);
}

OptimizerGroups optimizer_groups(ProcessContext& process, int64_t zero) {
  return {.gradients = &process.group(kGradientGroup),
          .norm = &process.group(zero == 0 ? kModelGroup : kWorldGroup),
          .tensor = &process.group(kTensorGroup),
          .coordinates = process.coordinates()};
}

}  // namespace triptych

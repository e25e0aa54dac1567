// T tokens of the own ring part   S of the part at hand   H, G query and key/value heads   K head
// dim

#include "parallel/ring_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <cmath>

#include "base/error.h"
#include "kernels/kept_results.h"
#include "parallel/ring_exchange.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor host_tensor(const std::vector<int64_t>& values) {
  auto result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

/// Some tokens of a ring part: all, the early chunks or the late ones.
struct Tokens {
  at::Tensor rows;    ///< int64; undefined: all of them
  at::Tensor bounds;  ///< of the samples, on the host

  at::Tensor of(const at::Tensor& x) const { return rows.defined() ? x.index_select(0, rows) : x; }
};

enum class Which { kAll, kEarly, kLate };

Tokens tokens_of(const SequenceSplit& split, int64_t part, Which which, const at::Device& device) {
  std::vector<int64_t> rows, bounds{0};
  int64_t begin = 0, count = 0;
  for (int64_t sample = 0; sample < split.samples(); ++sample) {
    const auto [early, late] = split.share(part, sample);
    const int64_t first = which == Which::kLate ? begin + early : begin;
    const int64_t size = which == Which::kAll ? early + late : which == Which::kLate ? late : early;
    for (int64_t i = 0; which != Which::kAll && i < size; ++i) rows.push_back(first + i);
    count += size;
    bounds.push_back(count);
    begin += early + late;
  }
  Tokens tokens{.rows = {}, .bounds = host_tensor(bounds)};
  if (which != Which::kAll) tokens.rows = host_tensor(rows).to(device);
  return tokens;
}

/// What rank `me` computes when the part of rank `source` is at hand.
struct Block {
  Tokens queries, keys;
  bool causal = false;
};

Block block_of(const SequenceSplit& split, int64_t me, int64_t source, bool causal,
               const at::Device& device) {
  Which queries = Which::kAll, keys = Which::kAll;
  if (causal && source < me) keys = Which::kEarly;
  if (causal && source > me) queries = Which::kLate;
  Block block{.queries = tokens_of(split, me, queries, device),
              .keys = tokens_of(split, source, keys, device),
              .causal = causal && source == me};
  if (source == me) block.keys.bounds = block.queries.bounds;
  return block;
}

/// The joined result of the blocks so far.
class Joined {
 public:
  /// The first block must give every query at least one key.
  void add(const AttentionResult& part, const Tokens& queries) {
    const auto out = part.out.to(part.lse.scalar_type());
    if (!out_.defined()) {
      out_ = out;
      lse_ = part.lse;
      return;
    }
    const auto before = queries.of(lse_);
    const auto share = at::sigmoid(part.lse - before).unsqueeze_(2);  // of the new block
    put(out_, queries, queries.of(out_).lerp(out, share));
    put(lse_, queries, at::logaddexp(before, part.lse));
  }
  const at::Tensor& out() const { return out_; }
  const at::Tensor& lse() const { return lse_; }

 private:
  static void put(at::Tensor& whole, const Tokens& queries, at::Tensor part) {
    if (queries.rows.defined()) {
      whole.index_copy_(0, queries.rows, part);
    } else {
      whole = std::move(part);
    }
  }
  at::Tensor out_, lse_;
};

void add_rows(const at::Tensor& sum, const Tokens& tokens, const at::Tensor& part) {
  if (tokens.rows.defined()) {
    sum.index_add_(0, tokens.rows, part);
  } else {
    sum.add_(part);
  }
}

/// What a run and its backward share.
struct RingRun : torch::CustomClassHolder {
  SequenceSplit split;
  Group& ring;
  AttentionOptions options;

  RingRun(SequenceSplit split, Group& ring, const AttentionOptions& options)
      : split(std::move(split)), ring(ring), options(options) {}

  int64_t size() const { return ring.size(); }
  /// The rank whose part is at hand in step j.
  int64_t source(int64_t j) const { return (ring.rank() - j + size()) % size(); }
  std::vector<int64_t> shape(int64_t j, const at::Tensor& k) const {
    return {2, split.tokens(source(j)), k.size(1), k.size(2)};
  }
  Block block(int64_t j, const at::Device& device) const {
    return block_of(split, ring.rank(), source(j), options.causal, device);
  }
  AttentionOptions block_options(const Block& block) const {
    return {.causal = block.causal, .scale = options.scale};
  }
};

/// Attention over the parts of all ranks, one after the other: out in q's dtype, and lse.
KeptResults::Pair attend_around(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const RingRun& run) {
  Joined joined;
  auto kv = at::stack({k, v});
  for (int64_t j = 0; j < run.size(); ++j) {
    RingHop next;
    if (j + 1 < run.size()) next = RingHop(kv, run.shape(j + 1, k), run.ring, "keys, values");
    const auto block = run.block(j, q.device());
    joined.add(attention_block(block.queries.of(q), block.keys.of(kv[0]), block.keys.of(kv[1]),
                               block.queries.bounds, block.keys.bounds, run.block_options(block)),
               block.queries);
    if (j + 1 < run.size()) kv = next.wait();
  }
  return {joined.out().to(q.scalar_type()), joined.lse()};
}

class RingAttention : public torch::autograd::Function<RingAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<RingRun>& run) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [out, lse] = kept_or_computed([&] { return attend_around(q, k, v, *run); });
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["run"] = c10::IValue::make_capsule(run);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4];
    const auto capsule = ctx->saved_data["run"].toCapsule();
    const auto& run = static_cast<const RingRun&>(*capsule);

    const auto wide = q.options().dtype(lse.scalar_type());
    const auto dq = at::zeros(q.sizes(), wide);
    auto kv = at::stack({k, v});
    RingHop gradients;  // of the part at hand, from the ranks that had it before
    for (int64_t j = 0; j < run.size(); ++j) {
      RingHop next;
      if (j + 1 < run.size())
        next = RingHop(kv, run.shape(j + 1, k), run.ring, "keys, values, backward");
      const auto block = run.block(j, q.device());
      const auto part = attention_block_backward(
          block.queries.of(grads[0]), block.queries.of(q), block.keys.of(kv[0]),
          block.keys.of(kv[1]), block.queries.of(out), block.queries.of(lse), block.queries.bounds,
          block.keys.bounds, run.block_options(block));
      add_rows(dq, block.queries, part.dq);
      const auto dkv = j == 0 ? at::zeros(run.shape(j, k), wide) : gradients.wait();
      add_rows(dkv[0], block.keys, part.dk);
      add_rows(dkv[1], block.keys, part.dv);
      // after the last step the part at hand belongs to the next rank
      gradients = RingHop(dkv, run.shape(j + 1, k), run.ring, "gradients of keys, values");
      if (j + 1 < run.size()) kv = next.wait();
    }
    const auto home = gradients.wait();
    const auto type = q.scalar_type();
    return {dq.to(type), home[0].to(type), home[1].to(type), {}};
  }
};

}  // namespace

at::Tensor ring_attention(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                          const SequenceSplit& split, Group& ring,
                          const AttentionOptions& options) {
  require(split.ring() == ring.size() && q_THK.size(0) == split.tokens(ring.rank()) &&
              k_TGK.size(0) == q_THK.size(0) && v_TGK.sizes() == k_TGK.sizes(),
          "ring attention: q ", q_THK.sizes(), ", k ", k_TGK.sizes(), ", v ", v_TGK.sizes(),
          " on rank ", ring.rank(), " of ", ring.size(), " must hold ", split.tokens(ring.rank()),
          " tokens");
  return RingAttention::apply(q_THK, k_TGK, v_TGK,
                              c10::make_intrusive<RingRun>(split, ring, options));
}

}  // namespace triptych

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "kernels/reference.h"

namespace triptych::reference {
namespace {

// All segments of one number of queries and one of keys, so that they form one batch.
struct Group {
  struct Side {
    int64_t length = 0;
    at::Tensor rows;  ///< int64 [n * length]
  };
  Side queries, keys;
};

Group::Side side(const std::vector<int64_t>& first, int64_t length, const at::Device& device) {
  const auto begin = at::tensor(first, at::kLong).unsqueeze(1);
  return {length, (begin + at::arange(length, at::kLong)).flatten().to(device)};
}

// Segments without queries are left out.
std::vector<Group> groups_of(const at::Tensor& cu_queries, const at::Tensor& cu_keys,
                             const at::Device& device) {
  const auto query_bounds = cu_queries.to(at::kCPU, at::kLong).contiguous(),
             key_bounds = cu_keys.to(at::kCPU, at::kLong).contiguous();
  const auto *q = query_bounds.const_data_ptr<int64_t>(), *k = key_bounds.const_data_ptr<int64_t>();
  std::map<std::pair<int64_t, int64_t>, std::pair<std::vector<int64_t>, std::vector<int64_t>>>
      starts;
  for (int64_t i = 0; i + 1 < query_bounds.numel(); ++i) {
    if (q[i + 1] == q[i]) continue;
    auto& [queries, keys] = starts[{q[i + 1] - q[i], k[i + 1] - k[i]}];
    queries.push_back(q[i]);
    keys.push_back(k[i]);
  }
  std::vector<Group> groups;
  for (const auto& [lengths, first] : starts) {
    groups.push_back(
        {side(first.first, lengths.first, device), side(first.second, lengths.second, device)});
  }
  return groups;
}

// [T, H, K] -> [n, H, length, K]
at::Tensor batch(const at::Tensor& x, const Group::Side& s) {
  return x.index_select(0, s.rows).unflatten(0, {-1, s.length}).transpose(1, 2);
}
at::Tensor unbatch(const at::Tensor& x) { return x.transpose(1, 2).flatten(0, 1); }

at::Tensor repeat_heads(const at::Tensor& x, int64_t H) {
  return x.size(1) == H ? x : x.repeat_interleave(H / x.size(1), 1);
}
at::Tensor wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}
// scale * q k^T with masked entries -inf, [n, H, L, S]; the last query sees the last key.
at::Tensor scores(const at::Tensor& q, const at::Tensor& k, bool causal, double scale) {
  auto z = at::matmul(q, k.transpose(-1, -2)) * scale;
  if (causal) {
    const auto hidden = at::ones({q.size(-2), k.size(-2)}, z.options().dtype(at::kBool))
                            .triu(1 + k.size(-2) - q.size(-2));
    z.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  }
  return z;
}

}  // namespace

Pair varlen_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const at::Tensor& cu_queries, const at::Tensor& cu_keys, bool causal,
                      double scale) {
  const int64_t H = q.size(1);
  auto out = at::zeros(q.sizes(), q.options());
  auto lse = at::full({q.size(0), H}, -std::numeric_limits<double>::infinity(),
                      wide(q.new_empty({0})).options());
  for (const auto& [queries, keys] : groups_of(cu_queries, cu_keys, q.device())) {
    if (keys.length == 0) continue;
    const auto z =
        scores(wide(batch(q, queries)), repeat_heads(wide(batch(k, keys)), H), causal, scale);
    const auto y = at::matmul(z.softmax(-1), repeat_heads(wide(batch(v, keys)), H));
    out.index_copy_(0, queries.rows, unbatch(y).to(q.scalar_type()));
    lse.index_copy_(0, queries.rows, unbatch(z.logsumexp(-1)));
  }
  return {out, lse};
}

Triple varlen_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& cu_queries, const at::Tensor& cu_keys,
                                 bool causal, double scale, bool wide_gradients) {
  const int64_t H = q.size(1), G = k.size(1);
  const auto type = wide_gradients ? lse.scalar_type() : q.scalar_type();
  auto dq = at::zeros(q.sizes(), q.options().dtype(type)),
       dk = at::zeros(k.sizes(), k.options().dtype(type)),
       dv = at::zeros(v.sizes(), v.options().dtype(type));
  auto fold = [&](const at::Tensor& x) {  // sums the query heads of one key/value head
    return x.unflatten(1, {G, H / G}).sum(2);
  };
  for (const auto& [queries, keys] : groups_of(cu_queries, cu_keys, q.device())) {
    if (keys.length == 0) continue;
    const auto q_ = wide(batch(q, queries)), k_ = repeat_heads(wide(batch(k, keys)), H),
               v_ = repeat_heads(wide(batch(v, keys)), H), dy = wide(batch(dout, queries)),
               y = wide(batch(out, queries)), l = batch(lse.unsqueeze(2), queries);
    const auto p = (scores(q_, k_, causal, scale) - l).exp();
    const auto dp = at::matmul(dy, v_.transpose(-1, -2));
    const auto ds = p * (dp - (dy * y).sum(-1, true)) * scale;
    dq.index_copy_(0, queries.rows, unbatch(at::matmul(ds, k_)).to(type));
    dk.index_copy_(0, keys.rows, unbatch(fold(at::matmul(ds.transpose(-1, -2), q_))).to(type));
    dv.index_copy_(0, keys.rows, unbatch(fold(at::matmul(p.transpose(-1, -2), dy))).to(type));
  }
  return {dq, dk, dv};
}

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale) {
  const int64_t H = q.size(1);
  auto heads_first = [](const at::Tensor& x) { return wide(x).transpose(0, 1).unsqueeze(0); };
  const auto z = scores(heads_first(q), repeat_heads(heads_first(k), H), true, scale);
  const auto y = at::matmul(z.softmax(-1), repeat_heads(heads_first(v), H));
  return y.squeeze(0).transpose(0, 1).to(q.scalar_type()).contiguous();
}

}  // namespace triptych::reference

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "kernels/reference.h"

namespace triptych::reference {
namespace {

// Rows of all segments of one length, as [n, length] indices, so that they form one batch.
struct Group {
  int64_t length = 0;
  at::Tensor rows;  ///< int64 [n * length]
};

std::vector<Group> groups_of(const at::Tensor& cu_seqlens, const at::Device& device) {
  const auto bounds = cu_seqlens.to(at::kCPU, at::kLong).contiguous();
  const auto* b = bounds.const_data_ptr<int64_t>();
  std::map<int64_t, std::vector<int64_t>> starts;
  for (int64_t i = 0; i + 1 < bounds.numel(); ++i) {
    if (b[i + 1] > b[i]) starts[b[i + 1] - b[i]].push_back(b[i]);
  }
  std::vector<Group> groups;
  for (const auto& [length, first] : starts) {
    const auto begin = at::tensor(first, at::kLong).unsqueeze(1);
    groups.push_back({length, (begin + at::arange(length, at::kLong)).flatten().to(device)});
  }
  return groups;
}

// [T, H, K] -> [n, H, length, K]
at::Tensor batch(const at::Tensor& x, const Group& g) {
  return x.index_select(0, g.rows).unflatten(0, {-1, g.length}).transpose(1, 2);
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
                      const at::Tensor& cu_seqlens, bool causal, double scale) {
  const int64_t H = q.size(1);
  auto out = at::empty(q.sizes(), q.options());
  auto lse = at::empty({q.size(0), H}, wide(q.new_empty({0})).options());
  for (const auto& g : groups_of(cu_seqlens, q.device())) {
    const auto z = scores(wide(batch(q, g)), repeat_heads(wide(batch(k, g)), H), causal, scale);
    const auto y = at::matmul(z.softmax(-1), repeat_heads(wide(batch(v, g)), H));
    out.index_copy_(0, g.rows, unbatch(y).to(q.scalar_type()));
    lse.index_copy_(0, g.rows, unbatch(z.logsumexp(-1)));
  }
  return {out, lse};
}

Triple varlen_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k,
                                 const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse,
                                 const at::Tensor& cu_seqlens, bool causal, double scale) {
  const int64_t H = q.size(1), G = k.size(1);
  auto dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options()),
       dv = at::empty(v.sizes(), v.options());
  auto fold = [&](const at::Tensor& x) {  // sums the query heads of one key/value head
    return x.unflatten(1, {G, H / G}).sum(2);
  };
  for (const auto& g : groups_of(cu_seqlens, q.device())) {
    const auto q_ = wide(batch(q, g)), k_ = repeat_heads(wide(batch(k, g)), H),
               v_ = repeat_heads(wide(batch(v, g)), H), dy = wide(batch(dout, g)),
               y = wide(batch(out, g));
    const auto z = scores(q_, k_, causal, scale);
    const auto p =
        (z - lse.index_select(0, g.rows).unflatten(0, {-1, g.length}).transpose(1, 2).unsqueeze(-1))
            .exp();
    const auto dp = at::matmul(dy, v_.transpose(-1, -2));
    const auto ds = p * (dp - (dy * y).sum(-1, true)) * scale;
    dq.index_copy_(0, g.rows, unbatch(at::matmul(ds, k_)).to(q.scalar_type()));
    dk.index_copy_(0, g.rows,
                   unbatch(fold(at::matmul(ds.transpose(-1, -2), q_))).to(k.scalar_type()));
    dv.index_copy_(0, g.rows,
                   unbatch(fold(at::matmul(p.transpose(-1, -2), dy))).to(v.scalar_type()));
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

// T tokens   H query heads   G key/value heads   K head dim

#include "kernels/varlen_attention_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/cpu/attention_avx512.h"
#include "kernels/cpu/kernels.h"
#include "kernels/dispatch.h"

namespace triptych {

#ifdef TRIPTYCH_AVX512

namespace {

using cpu::Bf16;
using cpu::avx512::AttentionShape;
using cpu::avx512::Rows;
using cpu::avx512::RowsOut;

// One segment: its keys, and where they begin when packed, counted in padded tokens; its queries.
struct Segment {
  int64_t begin = 0, padded_begin = 0;
  int64_t first_query = 0, queries = 0;
  AttentionShape shape;
};

struct Segments {
  std::vector<Segment> list;
  int64_t padded = 0;  ///< padded tokens of all

  void add(Segment segment, int64_t keys, int64_t K, bool causal, double scale) {
    const int64_t Lp = (keys + 15) / 16 * 16;
    segment.padded_begin = padded;
    segment.shape = {
        .L = keys, .Lp = Lp, .K = K, .scale = static_cast<float>(scale), .causal = causal};
    list.push_back(segment);
    padded += Lp;
  }
};

/// Segments that have keys.
Segments segments_of(const at::Tensor& cu_queries, const at::Tensor& cu_keys, int64_t K,
                     bool causal, double scale) {
  const auto query_bounds = cu_queries.to(at::kLong).contiguous(),
             key_bounds = cu_keys.to(at::kLong).contiguous();
  const auto *q = query_bounds.const_data_ptr<int64_t>(), *k = key_bounds.const_data_ptr<int64_t>();
  Segments segments;
  for (int64_t i = 0; i + 1 < key_bounds.numel(); ++i) {
    if (k[i + 1] == k[i]) continue;
    segments.add({.begin = k[i], .first_query = q[i], .queries = q[i + 1] - q[i]}, k[i + 1] - k[i],
                 K, causal, scale);
  }
  return segments;
}

/// Whether every query has a key: then a pass over the segments writes every row of its result.
bool covers_all_queries(const Segments& segments, int64_t T) {
  int64_t covered = 0;
  for (const auto& s : segments.list) covered += s.queries;
  return covered == T;
}

Rows rows(const at::Tensor& x, int64_t token, int64_t head) {
  return {read<Bf16>(x) + token * x.stride(0) + head * x.stride(1), x.stride(0)};
}
RowsOut rows_out(const at::Tensor& x, int64_t token, int64_t head) {
  return {write<Bf16>(x) + token * x.stride(0) + head * x.stride(1), x.stride(0)};
}

// The kernels read pairs of numbers, so every row must begin at an even place.
bool even_rows(const at::Tensor& x) {
  return x.stride(2) == 1 && x.stride(0) % 2 == 0 && x.stride(1) % 2 == 0 &&
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 4 == 0;
}
at::Tensor with_even_rows(const at::Tensor& x) {
  return even_rows(x) ? x : x.clone(at::MemoryFormat::Contiguous);
}

// Keys or values of all segments and heads in one of the two layouts, made in parallel.
class Packed {
 public:
  using Pack = void (*)(const AttentionShape&, Rows, uint32_t*);
  Packed(const Segments& segments, const at::Tensor& x, Pack pack)
      : heads_(x.size(1)),
        half_(x.size(2) / 2),
        data_(at::empty({segments.padded * heads_ * half_}, x.options().dtype(at::kInt))) {
    const auto n = static_cast<int64_t>(segments.list.size());
    at::parallel_for(0, n * heads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Segment& s = segments.list[i / heads_];
        pack(s.shape, rows(x, s.begin, i % heads_), at(s, i % heads_));
      }
    });
  }
  uint32_t* at(const Segment& s, int64_t head) const {
    return reinterpret_cast<uint32_t*>(data_.mutable_data_ptr<int32_t>()) +
           (s.padded_begin * heads_ + head * s.shape.Lp) * half_;
  }

 private:
  int64_t heads_, half_;
  at::Tensor data_;
};

// Queries of one piece of work: enough for several tiles, few enough to spread one long segment.
constexpr int64_t kQueryPiece = 192;

void forward(const Segments& segments, const at::Tensor& q, const at::Tensor& k,
             const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse) {
  const int64_t H = q.size(1), group = H / k.size(1);
  const Packed keys(segments, k, cpu::avx512::pack_across);
  const Packed values(segments, v, cpu::avx512::pack_along);
  struct Piece {
    const Segment* segment;
    int64_t head, begin, end;
  };
  std::vector<Piece> pieces;
  for (const Segment& s : segments.list) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t t = 0; t < s.queries; t += kQueryPiece) {
        pieces.push_back({&s, h, t, std::min(t + kQueryPiece, s.queries)});
      }
    }
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [s, h, first, last] = pieces[i];
      cpu::avx512::attention_forward(s->shape, rows(q, s->first_query, h), first, last,
                                     keys.at(*s, h / group), values.at(*s, h / group),
                                     rows_out(out, s->first_query, h),
                                     write<float>(lse) + s->first_query * H + h, H);
    }
  });
}

}  // namespace

bool has_fast_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto on_host = [](const at::Tensor& x) { return x.is_cpu() || x.is_meta(); };
  return cpu::isa() == cpu::Isa::kAvx512 && q.scalar_type() == at::kBFloat16 && on_host(q) &&
         on_host(k) && on_host(v) && q.size(2) % 16 == 0 && q.size(2) > 0;
}

reference::Pair fast_varlen_attention(const at::Tensor& q_, const at::Tensor& k_,
                                      const at::Tensor& v_, const at::Tensor& cu_queries,
                                      const at::Tensor& cu_keys, bool causal, double scale) {
  const auto q = with_even_rows(q_), k = with_even_rows(k_), v = with_even_rows(v_);
  const auto out = at::empty(q.sizes(), q.options());
  const auto lse = at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat));
  const auto segments = segments_of(cu_queries, cu_keys, q.size(2), causal, scale);
  if (!covers_all_queries(segments, q.size(0))) {
    out.zero_();
    lse.fill_(-std::numeric_limits<double>::infinity());
  }
  forward(segments, q, k, v, out, lse);
  return {out, lse};
}

namespace {

/// The gradients of one segment's queries and of one of its key/value heads.
struct SegmentBackward {
  const at::Tensor &dout, &q, &out, &lse;
  const Packed &keys_across, &keys_along, &values_across;
  const at::Tensor &dq, &dk, &dv;  ///< all bf16, or all fp32

  void run(const Segment& s, int64_t g) const {
    const int64_t H = q.size(1), K = q.size(2), group = H / dk.size(1);
    const bool wide = dq.scalar_type() == at::kFloat;
    const auto sums = at::zeros({2, s.shape.Lp, K}, q.options().dtype(at::kFloat));
    float* dk_sum = write<float>(sums);
    float* dv_sum = dk_sum + s.shape.Lp * K;
    for (int64_t h = g * group; h < (g + 1) * group; ++h) {
      cpu::avx512::AttentionBackward a{.q = rows(q, s.first_query, h),
                                       .dout = rows(dout, s.first_query, h),
                                       .out = rows(out, s.first_query, h),
                                       .lse = read<float>(lse) + s.first_query * H + h,
                                       .lse_stride = H,
                                       .keys_across = keys_across.at(s, g),
                                       .keys_along = keys_along.at(s, g),
                                       .values_across = values_across.at(s, g),
                                       .queries = s.queries,
                                       .dk = dk_sum,
                                       .dv = dv_sum};
      if (wide) {
        a.dq_wide = write<float>(dq) + s.first_query * dq.stride(0) + h * dq.stride(1);
        a.dq_wide_stride = dq.stride(0);
      } else {
        a.dq = rows_out(dq, s.first_query, h);
      }
      cpu::avx512::attention_backward(s.shape, a);
    }
    if (wide) {
      const auto keys = sums.narrow(1, 0, s.shape.L);
      dk.narrow(0, s.begin, s.shape.L).select(1, g).copy_(keys[0]);
      dv.narrow(0, s.begin, s.shape.L).select(1, g).copy_(keys[1]);
    } else {
      cpu::avx512::round_rows(s.shape, dk_sum, rows_out(dk, s.begin, g));
      cpu::avx512::round_rows(s.shape, dv_sum, rows_out(dv, s.begin, g));
    }
  }
};

}  // namespace

reference::Triple fast_varlen_attention_backward(const at::Tensor& dout_, const at::Tensor& q_,
                                                 const at::Tensor& k_, const at::Tensor& v_,
                                                 const at::Tensor& out_, const at::Tensor& lse_,
                                                 const at::Tensor& cu_queries,
                                                 const at::Tensor& cu_keys, bool causal,
                                                 double scale, bool wide) {
  const auto dout = with_even_rows(dout_), q = with_even_rows(q_), k = with_even_rows(k_),
             v = with_even_rows(v_), out = with_even_rows(out_), lse = lse_.contiguous();
  const int64_t G = k.size(1), K = q.size(2);
  const auto options = q.options().dtype(wide ? at::kFloat : at::kBFloat16);
  const auto dq = at::empty(q.sizes(), options), dk = at::empty(k.sizes(), options),
             dv = at::empty(v.sizes(), options);
  const Segments segments = segments_of(cu_queries, cu_keys, K, causal, scale);
  if (!covers_all_queries(segments, q.size(0))) dq.zero_();
  const Packed keys_across(segments, k, cpu::avx512::pack_across);
  const Packed keys_along(segments, k, cpu::avx512::pack_along);
  const Packed values_across(segments, v, cpu::avx512::pack_across);
  const SegmentBackward backward{dout,          q,  out, lse, keys_across, keys_along,
                                 values_across, dq, dk,  dv};
  // The query heads of one key/value head add up in one thread, in order.
  const auto n = static_cast<int64_t>(segments.list.size());
  at::parallel_for(0, n * G, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) backward.run(segments.list[i / G], i % G);
  });
  return {dq, dk, dv};
}

at::Tensor fast_cached_attention(const at::Tensor& q_, const at::Tensor& k_, const at::Tensor& v_,
                                 double scale) {
  const auto q = with_even_rows(q_), k = with_even_rows(k_), v = with_even_rows(v_);
  const auto out = at::empty(q.sizes(), q.options());
  const auto lse = at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat));
  Segments segments;
  segments.add({.queries = q.size(0)}, k.size(0), q.size(2), /*causal=*/true, scale);
  segments.list[0].shape.offset = k.size(0) - q.size(0);
  forward(segments, q, k, v, out, lse);
  return out;
}

#else

bool has_fast_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&) { return false; }
reference::Pair fast_varlen_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                      const at::Tensor&, const at::Tensor&, bool, double) {
  return {};
}
reference::Triple fast_varlen_attention_backward(const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const at::Tensor&,
                                                 const at::Tensor&, const at::Tensor&, bool, double,
                                                 bool) {
  return {};
}
at::Tensor fast_cached_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, double) {
  return {};
}

#endif

}  // namespace triptych

#include "kernels/linear_cross_entropy_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/linear_cross_entropy_avx512.h"
#include "kernels/dispatch.h"

namespace triptych {

namespace {

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Some tens of slabs balance the threads; each has a dh of its own, together at most 64 MiB.
int64_t slab_rows(int64_t N, int64_t V, int64_t D) {
  const int64_t dh_bytes = std::max<int64_t>(1, N * D * int64_t{sizeof(float)});
  const int64_t slabs = std::clamp<int64_t>((int64_t{64} << 20) / dh_bytes, 8, 32);
  return std::max<int64_t>(240, round_up((V + slabs - 1) / slabs, 240));
}

}  // namespace

CrossEntropyScratch fast_cross_entropy_scratch(int64_t N, int64_t V, int64_t D,
                                               int64_t logits_bytes) {
  const int64_t padded = round_up(N, 32), rows = slab_rows(N, V, D);
  const int64_t all = V * padded * 2, slab = rows * padded * 2;
  return {.packed_bytes = 2 * D * padded * 2,
          .logits_bytes = all <= logits_bytes ? all : slab,
          .slabs = (V + rows - 1) / rows};
}

#ifdef TRIPTYCH_AVX512

namespace {

using cpu::Bf16;
using cpu::avx512::HeadShape;

class Head {
 public:
  Head(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
       const at::Tensor& token_weights, int64_t logits_bytes, const VocabularyPart* part)
      : N_(h.size(0)),
        V_(weight.size(0)),
        D_(h.size(1)),
        shape_{N_, round_up(N_, 32), D_},
        part_(part),
        rows_(slab_rows(N_, V_, D_)),
        slabs_((V_ + rows_ - 1) / rows_),
        weight_(weight),
        columns_(at::empty({D_ / 2, shape_.Np}, h.options().dtype(at::kInt))),
        pairs_(at::empty({shape_.Np / 2, D_}, h.options().dtype(at::kInt))),
        labels_(shape_.Np, kNowhere),
        weights_(shape_.Np, 0),
        lse_(shape_.Np, 0),
        counted_(N_, false) {
    cpu::avx512::pack_head_rows(shape_, read<Bf16>(h), packed(columns_), packed(pairs_));
    const auto* label = labels.const_data_ptr<int64_t>();
    const auto* token_weight = token_weights.const_data_ptr<float>();
    for (int64_t n = 0; n < N_; ++n) {
      if (label[n] < 0) continue;
      labels_[n] = label[n] - (part == nullptr ? 0 : part->first);
      weights_[n] = token_weight[n];
      counted_[n] = true;
    }
    if (V_ * shape_.Np * int64_t{sizeof(Bf16)} <= logits_bytes) {
      kept_ = at::empty({V_, shape_.Np}, h.options());
    }
  }

  /// First pass: log-sum-exp of every row and its loss.
  std::vector<float> losses() {
    const int64_t Np = shape_.Np;
    std::vector<float> maximum(slabs_ * Np, -1e30f), sum(slabs_ * Np, 0), target(Np, 0);
    at::parallel_for(0, slabs_, 1, [&](int64_t begin, int64_t end) {
      at::Tensor scratch;
      for (int64_t slab = begin; slab < end; ++slab) {
        const int64_t first = slab * rows_, count = std::min(rows_, V_ - first);
        const Bf16* logits = compute(slab, scratch, &maximum[slab * Np], &sum[slab * Np]);
        for (int64_t n = 0; n < N_; ++n) {  // a label lies in one slab: no two threads write it
          const int64_t v = labels_[n] - first;
          if (v >= 0 && v < count) {
            target[n] = c10::detail::f32_from_bits(logits[v * Np + n].bits);
          }
        }
      }
    });
    std::vector<float> losses(N_, 0);
    for (int64_t n = 0; n < N_; ++n) {
      double most = -1e30, total = 0;
      for (int64_t s = 0; s < slabs_; ++s) most = std::max<double>(most, maximum[s * Np + n]);
      for (int64_t s = 0; s < slabs_; ++s) {
        total += sum[s * Np + n] * std::exp(maximum[s * Np + n] - most);
      }
      const double lse = most + std::log(total);
      lse_[n] = static_cast<float>(lse);
      if (counted_[n]) losses[n] = static_cast<float>(lse - target[n]);
    }
    if (part_ == nullptr) return losses;

    const auto all = [&](std::vector<float>& values) {
      return at::from_blob(values.data(), {N_}, at::kFloat);
    };
    part_->join(all(lse_), all(target));
    for (int64_t n = 0; n < N_; ++n) losses[n] = counted_[n] ? lse_[n] - target[n] : 0;
    return losses;
  }

  double total(const std::vector<float>& losses) const {
    double sum = 0;
    for (int64_t n = 0; n < N_; ++n) sum += double{losses[n]} * weights_[n];
    return sum;
  }

  /// Second pass; either result may be left out.
  void gradients(const at::Tensor& dh, const at::Tensor& dweight) const {
    const auto partial =
        dh.defined() ? at::zeros({slabs_, N_, D_}, dh.options().dtype(at::kFloat)) : at::Tensor();
    at::parallel_for(0, slabs_, 1, [&](int64_t begin, int64_t end) {
      at::Tensor scratch;
      std::vector<float> maximum(shape_.Np), sum(shape_.Np);
      std::vector<int64_t> labels(shape_.Np);
      for (int64_t slab = begin; slab < end; ++slab) {
        const int64_t first = slab * rows_, count = std::min(rows_, V_ - first);
        const Bf16* logits = kept_.defined() ? read<Bf16>(kept_) + first * shape_.Np
                                             : compute(slab, scratch, maximum.data(), sum.data());
        std::transform(labels_.begin(), labels_.end(), labels.begin(),
                       [&](int64_t label) { return label - first; });
        cpu::avx512::head_gradients(
            shape_,
            {.rows = packed(pairs_),
             .lse = lse_.data(),
             .weights = weights_.data(),
             .labels = labels.data(),
             .dweight = dweight.defined() ? write<Bf16>(dweight) + first * D_ : nullptr,
             .dh = partial.defined() ? write<float>(partial) + slab * N_ * D_ : nullptr},
            read<Bf16>(weight_) + first * D_, count, logits);
      }
    });
    if (dh.defined()) dh.copy_(partial.sum(0));
  }

 private:
  static constexpr int64_t kNowhere = std::numeric_limits<int64_t>::min() / 2;  // in no slab

  static uint32_t* packed(const at::Tensor& x) {
    return reinterpret_cast<uint32_t*>(x.mutable_data_ptr<int32_t>());
  }

  // Logits of one slab, into the kept ones or into scratch.
  const Bf16* compute(int64_t slab, at::Tensor& scratch, float* maximum, float* sum) const {
    const int64_t first = slab * rows_, count = std::min(rows_, V_ - first);
    if (!kept_.defined() && !scratch.defined()) {
      scratch = at::empty({rows_, shape_.Np}, weight_.options());
    }
    Bf16* logits = kept_.defined() ? write<Bf16>(kept_) + first * shape_.Np : write<Bf16>(scratch);
    cpu::avx512::head_logits(shape_, packed(columns_), read<Bf16>(weight_) + first * D_, count,
                             logits, maximum, sum);
    return logits;
  }

  int64_t N_, V_, D_;
  HeadShape shape_;
  const VocabularyPart* part_;
  int64_t rows_, slabs_;  // vocabulary rows of a slab, their number
  at::Tensor weight_, columns_, pairs_, kept_;
  std::vector<int64_t> labels_;
  std::vector<float> weights_, lse_;
  std::vector<bool> counted_;
};

}  // namespace

bool has_fast_cross_entropy(const at::Tensor& h, const at::Tensor& weight) {
  // Beyond some thousand rows the library's product is as good, and dlogits leave the caches.
  constexpr int64_t kMostRows = 2048;
  return cpu::isa() == cpu::Isa::kAvx512 && h.scalar_type() == at::kBFloat16 &&
         h.size(1) % 32 == 0 && h.size(1) > 0 && h.size(0) > 0 && h.size(0) <= kMostRows &&
         weight.size(0) > 0;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> fast_linear_cross_entropy(
    const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
    const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
    const VocabularyPart* part) {
  Head head(h.contiguous(), weight.contiguous(), labels.contiguous(),
            token_weights.to(at::kFloat).contiguous(), logits_bytes, part);
  const auto losses = head.losses();
  at::Tensor dh, dweight;
  if (want_dh) dh = at::empty_like(h, at::MemoryFormat::Contiguous);
  if (want_dweight) dweight = at::empty_like(weight, at::MemoryFormat::Contiguous);
  if (want_dh || want_dweight) head.gradients(dh, dweight);
  return {at::scalar_tensor(head.total(losses), h.options().dtype(at::kDouble)),
          at::tensor(losses, h.options().dtype(at::kFloat)), dh, dweight};
}

#else

bool has_fast_cross_entropy(const at::Tensor&, const at::Tensor&) { return false; }

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> fast_linear_cross_entropy(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, bool, bool,
    const VocabularyPart*) {
  return {};
}

#endif

}  // namespace triptych

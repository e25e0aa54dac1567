#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "kernels/reference.h"

namespace triptych::reference {

// Two passes over the vocabulary: the first finds each row's log-sum-exp, the second turns a
// chunk's logits into gradients. With one chunk its logits are kept and computed once.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_cross_entropy(
    const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
    const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
    const VocabularyPart* part) {
  const int64_t N = h.size(0), V = weight.size(0);
  const auto wide = h.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto row = h.options().dtype(wide);
  const int64_t row_bytes = std::max<int64_t>(1, N) * static_cast<int64_t>(at::elementSize(wide));
  const int64_t chunk = std::clamp<int64_t>(logits_bytes / row_bytes, 1, std::max<int64_t>(V, 1));

  const auto counted = labels.ge(0);
  // A word outside of this part is in none of its chunks.
  const auto targets = labels.clamp_min(0) - (part == nullptr ? 0 : part->first);
  const auto weights = at::where(counted, token_weights.to(wide), at::zeros({}, row));
  auto logits_of = [&](int64_t begin, int64_t end) {
    return at::linear(h, weight.slice(0, begin, end)).to(wide);
  };

  auto lse = at::full({N}, -std::numeric_limits<double>::infinity(), row);
  auto target_logit = at::zeros({N}, row);
  at::Tensor kept;
  for (int64_t begin = 0; begin < V; begin += chunk) {
    const int64_t end = std::min(begin + chunk, V);
    const auto z = logits_of(begin, end);
    lse = at::logaddexp(lse, z.logsumexp(1));
    const auto here = targets.ge(begin).logical_and(targets.lt(end));
    const auto column = (targets - begin).clamp(0, end - begin - 1).unsqueeze(1);
    target_logit = at::where(here, z.gather(1, column).squeeze(1), target_logit);
    if (chunk >= V) kept = z;
  }
  if (part != nullptr) part->join(lse, target_logit);
  const auto losses = at::where(counted, lse - target_logit, at::zeros({}, row));
  const auto total = (losses.to(at::kDouble) * weights.to(at::kDouble)).sum();
  if (!want_dh && !want_dweight) return {total, losses, {}, {}};

  at::Tensor dh = want_dh ? at::zeros(h.sizes(), row) : at::Tensor();
  at::Tensor dweight = want_dweight ? at::empty_like(weight) : at::Tensor();
  for (int64_t begin = 0; begin < V; begin += chunk) {
    const int64_t end = std::min(begin + chunk, V);
    auto dz = ((kept.defined() ? kept : logits_of(begin, end)) - lse.unsqueeze(1)).exp_();
    const auto here = targets.ge(begin).logical_and(targets.lt(end));
    const auto column = (targets - begin).clamp(0, end - begin - 1).unsqueeze(1);
    dz.scatter_add_(1, column, -here.to(wide).unsqueeze(1));
    dz.mul_(weights.unsqueeze(1));
    const auto dz_narrow = dz.to(h.scalar_type());
    if (want_dh) dh.add_(at::mm(dz_narrow, weight.slice(0, begin, end)));
    if (want_dweight) dweight.slice(0, begin, end).copy_(at::mm(dz_narrow.t(), h));
  }
  return {total, losses, want_dh ? dh.to(h.scalar_type()) : dh, dweight};
}

}  // namespace triptych::reference

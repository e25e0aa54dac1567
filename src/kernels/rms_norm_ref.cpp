#include <ATen/ATen.h>

#include "kernels/reference.h"

namespace triptych::reference {
namespace {
// fp64 inputs keep their precision; everything else computes in fp32.
at::Tensor wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}
}  // namespace

Pair rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto x_wide = wide(x);
  const auto rstd = at::rsqrt(x_wide.square().mean(-1) + eps);
  return {weight * (x_wide * rstd.unsqueeze(-1)).to(x.scalar_type()), rstd};
}

Pair rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, const std::optional<at::Tensor>& residual) {
  const int64_t D = x.size(-1);
  const auto r = rstd.unsqueeze(-1);
  const auto normed = wide(x) * r;
  const auto g = wide(dy) * wide(weight);
  auto dx = r * (g - normed * (g * normed).sum(-1, true) / D);
  if (residual) dx = dx + wide(*residual);
  const auto dweight = (wide(dy) * normed.to(x.scalar_type())).reshape({-1, D}).sum(0);
  return {dx.to(x.scalar_type()), dweight.to(weight.scalar_type())};
}

}  // namespace triptych::reference

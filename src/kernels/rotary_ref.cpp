#include <ATen/ATen.h>

#include "kernels/reference.h"

namespace triptych::reference {

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  // Mixed dtypes promote to the tables' fp32, equal dtypes round after every operator.
  const auto wide = x.to(cos.scalar_type());
  const auto c = cos.unsqueeze(1), s = inverse ? -sin.unsqueeze(1) : sin.unsqueeze(1);
  const auto halves = wide.chunk(2, -1);
  return (wide * c + at::cat({-halves[1], halves[0]}, -1) * s).to(x.scalar_type());
}

}  // namespace triptych::reference

#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "kernels/rms_norm.h"
#include "nn/parameter_builder.h"
#include "nn/tensor_region.h"
#include "parallel/parameter.h"

namespace triptych {

/// Root-mean-square norm with a weight of its own: a thin holder of the kernel's arguments.
class RmsNorm {
 public:
  /// @param path  module path on the hub; the parameter is `<path>.weight`, [size].
  RmsNorm(ParameterBuilder& builder, const std::string& path, const std::string& part, int64_t size,
          double eps, Place place = Place::kBetween)
      : weight(builder.make(path + ".weight", part, {size}, {Parameter::Init::Kind::kOne, 0},
                            {.split = {}, .sum_over_tensor = finds_part(place, builder.groups())})),
        eps_(eps) {}

  at::Tensor forward(const at::Tensor& x) const { return rms_norm(x, weight->value, eps_); }

  /// (x + r, norm of it): a residual sum and the norm behind it in one pass.
  AddRmsNorm forward_sum(const at::Tensor& x, const at::Tensor& r) const {
    return add_rms_norm(x, r, weight->value, eps_);
  }

  ParameterPtr weight;

 private:
  double eps_;
};

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "kernels/rms_norm.h"
#include "nn/parameter_builder.h"
#include "parallel/parameter.h"

namespace triptych {

/// Root-mean-square norm with a weight of its own: a thin holder of the kernel's arguments.
class RmsNorm {
 public:
  /// Where the norm stands: between matrices (each tensor rank may hold its own tokens there), or
  /// inside a tensor region, where each rank finds a part of the gradient.
  enum class Place : uint8_t { kBetween, kInRegion };

  /// @param path  module path on the hub; the parameter is `<path>.weight`, [size].
  RmsNorm(ParameterBuilder& builder, const std::string& path, const std::string& part, int64_t size,
          double eps, Place place = Place::kBetween)
      : weight(builder.make(
            path + ".weight", part, {size}, {Parameter::Init::Kind::kOne, 0},
            {.split = {},
             .sum_over_tensor = place == Place::kInRegion || builder.groups().split_tokens()})),
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

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/layer_norm.h>

#include <string>

#include "nn/parameter_builder.h"
#include "nn/tensor_region.h"
#include "parallel/parameter.h"

namespace triptych {

/// Layer norm over the last dim with weight and bias, as torch.nn.LayerNorm.
class LayerNorm {
 public:
  /// @param path  module path on the hub; the parameters are `<path>.weight` and `<path>.bias`,
  ///   [size].
  LayerNorm(ParameterBuilder& builder, const std::string& path, const std::string& part,
            int64_t size, double eps, Place place = Place::kBetween)
      : eps_(eps) {
    const Placement placement{.split = {}, .sum_over_tensor = finds_part(place, builder.groups())};
    weight =
        builder.make(path + ".weight", part, {size}, {Parameter::Init::Kind::kOne, 0}, placement);
    bias = builder.make(path + ".bias", part, {size}, {Parameter::Init::Kind::kZero, 0}, placement);
  }

  at::Tensor forward(const at::Tensor& x) const {
    return at::layer_norm(x, {x.size(-1)}, weight->value, bias->value, eps_);
  }

  ParameterPtr weight, bias;

 private:
  double eps_;
};

}  // namespace triptych

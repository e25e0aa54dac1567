#include "nn/parameter_builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"

namespace triptych {

ParameterPtr ParameterBuilder::make(const std::string& name, const std::string& part,
                                    std::vector<int64_t> shape, Parameter::Init init,
                                    Placement placement) {
  require(std::none_of(parameters_.begin(), parameters_.end(),
                       [&](const auto& p) { return p->name == name; }),
          "parameter '", name, "' is made twice");
  auto parameter = std::make_shared<Parameter>();
  parameter->name = name;
  parameter->part = part;
  parameter->full_shape = std::move(shape);
  parameter->placement = placement;
  parameter->init = init;
  parameter->value =
      at::empty(parameter->full_shape, at::TensorOptions().dtype(dtype_).device(at::kMeta));
  parameters_.push_back(parameter);
  return parameter;
}

}  // namespace triptych

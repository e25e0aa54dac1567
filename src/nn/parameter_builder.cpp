#include "nn/parameter_builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.h"

namespace triptych {

ParameterPtr make_parameter(const ParameterSpec& spec, const ModelGroups& groups) {
  auto parameter = std::make_shared<Parameter>();
  parameter->name = spec.name;
  parameter->part = spec.part;
  parameter->full_shape = spec.shape;
  parameter->placement = spec.placement;
  parameter->init = spec.init;
  auto shape = spec.shape;
  const int64_t ranks = groups.tensor_size(), rank = groups.tensor_rank();
  const auto& split = spec.placement.split;
  if (ranks > 1 && split && split->axis == Axis::kTensor) {
    auto& size = shape[static_cast<size_t>(split->dim)];
    const int64_t units = size / split->sections / split->unit;
    parameter->held = held_ranges(*split, size, ranks, rank);
    parameter->copies = std::max<int64_t>(1, ranks / std::max<int64_t>(1, units));
    size = 0;
    for (const auto& range : parameter->held) size += range.length;
    if (units >= ranks) parameter->copies = 1;
    parameter->first_copy = rank % parameter->copies == 0;
  } else {
    parameter->first_copy = rank == 0;
    parameter->placement.sum_over_tensor = spec.placement.sum_over_tensor && ranks > 1;
  }
  parameter->value = at::empty(shape, at::TensorOptions().dtype(spec.dtype).device(at::kMeta));
  return parameter;
}

ParameterPtr ParameterBuilder::make(const std::string& name, const std::string& part,
                                    std::vector<int64_t> shape, Parameter::Init init,
                                    Placement placement) {
  require(std::none_of(parameters_.begin(), parameters_.end(),
                       [&](const auto& p) { return p->name == name; }),
          "parameter '", name, "' is made twice");
  parameters_.push_back(
      make_parameter({name, part, std::move(shape), init, placement, dtype_}, groups_));
  return parameters_.back();
}

}  // namespace triptych

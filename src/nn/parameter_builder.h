#pragma once

#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "parallel/parameter.h"

namespace triptych {

class Linear;

/// Makes a model's parameters on the meta device, so that a model of any size is built without
/// memory, and remembers its linear layers, which LoRA may adapt.
class ParameterBuilder {
 public:
  explicit ParameterBuilder(at::ScalarType dtype) : dtype_(dtype) {}

  /// @param name   the hub's key; unique.
  /// @param shape  of the whole tensor.
  ParameterPtr make(const std::string& name, const std::string& part, std::vector<int64_t> shape,
                    Parameter::Init init, Placement placement = {});

  void remember(Linear* linear) { linears_.push_back(linear); }

  at::ScalarType dtype() const { return dtype_; }
  const ParameterList& parameters() const { return parameters_; }
  const std::vector<Linear*>& linears() const { return linears_; }

 private:
  at::ScalarType dtype_;
  ParameterList parameters_;
  std::vector<Linear*> linears_;
};

}  // namespace triptych

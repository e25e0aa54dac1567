#pragma once

#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "parallel/model_groups.h"
#include "parallel/parameter.h"

namespace triptych {

class Linear;

struct ParameterSpec {
  std::string name;            ///< the hub's key; unique
  std::string part;            ///< as Parameter::part
  std::vector<int64_t> shape;  ///< of the whole tensor
  Parameter::Init init;
  Placement placement;
  at::ScalarType dtype = at::kFloat;
};

/// A parameter on the meta device, in the shape that this rank holds of it.
ParameterPtr make_parameter(const ParameterSpec& spec, const ModelGroups& groups);

/// Makes a model's parameters on the meta device, so that a model of any size is built without
/// memory, and remembers its linear layers, which LoRA may adapt. Blocks take the groups that they
/// exchange activations over from here.
class ParameterBuilder {
 public:
  explicit ParameterBuilder(at::ScalarType dtype, const ModelGroups& groups = {})
      : dtype_(dtype), groups_(groups) {}

  /// @param name   the hub's key; unique.
  /// @param shape  of the whole tensor.
  ParameterPtr make(const std::string& name, const std::string& part, std::vector<int64_t> shape,
                    Parameter::Init init, Placement placement = {});

  void remember(Linear* linear) { linears_.push_back(linear); }

  at::ScalarType dtype() const { return dtype_; }
  const ModelGroups& groups() const { return groups_; }
  const ParameterList& parameters() const { return parameters_; }
  const std::vector<Linear*>& linears() const { return linears_; }

 private:
  at::ScalarType dtype_;
  ModelGroups groups_;
  ParameterList parameters_;
  std::vector<Linear*> linears_;
};

}  // namespace triptych

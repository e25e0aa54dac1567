#include "models/qwen2_5_vl/model.h"

#include "models/qwen2_5_vl/text.h"
#include "models/qwen2_5_vl/vision.h"

namespace triptych::qwen2_5_vl {

Model build(const Options& options, at::ScalarType dtype, const ModelGroups& groups) {
  ParameterBuilder builder(dtype, groups);
  Model model;
  append_vision_layers(model.layers, builder, options);
  append_text_layers(model.layers, builder, options);
  model.parameters = builder.parameters();
  model.linears = builder.linears();
  return model;
}

}  // namespace triptych::qwen2_5_vl

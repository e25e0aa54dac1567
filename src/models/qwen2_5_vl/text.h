#pragma once

#include "models/qwen2_5_vl/options.h"
#include "nn/model.h"
#include "nn/parameter_builder.h"

namespace triptych::qwen2_5_vl {

/// Appends the text model's layers: embedding with the features put in, decoder layers, head.
void append_text_layers(LayerList& layers, ParameterBuilder& builder, const Options& options);

}  // namespace triptych::qwen2_5_vl

#pragma once

#include "models/qwen2_5_vl/options.h"
#include "nn/model.h"
#include "nn/parameter_builder.h"

namespace triptych::qwen2_5_vl {

/// Appends the vision tower's layers: patch embedding, blocks, merger.
void append_vision_layers(LayerList& layers, ParameterBuilder& builder, const Options& options);

}  // namespace triptych::qwen2_5_vl

#pragma once

#include "model.h"
#include "nn/parameter_builder.h"
#include "parallel/layer.h"

namespace triptych::video_transformer {

void append_text_encoder(LayerList& layers, ParameterBuilder& builder, const Options& options);
/// Joint attention over text and video, with an MLP.
std::unique_ptr<Layer> make_joint_block(ParameterBuilder& builder, const Options& options,
                                        const std::string& path);
/// Attention within frames, then along time, for the video tokens.
std::unique_ptr<Layer> make_axes_block(ParameterBuilder& builder, const Options& options,
                                       const std::string& path);

}  // namespace triptych::video_transformer

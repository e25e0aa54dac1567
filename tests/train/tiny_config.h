#pragma once

#include "models/qwen2_5_vl/model.h"

namespace triptych {

/// config.json of a Qwen2.5-VL with two layers in each tower; tokens 60 and 61 are placeholders.
inline Json tiny_config() {
  namespace qwen = qwen2_5_vl;
  auto options = qwen::preset("qwen2_5_vl_3b");
  options.vision.depth = 2;
  options.vision.hidden_size = options.vision.out_hidden_size = 32;
  options.vision.intermediate_size = 44;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {1};
  options.text.vocab_size = 64;
  options.text.hidden_size = 32;
  options.text.intermediate_size = 48;
  options.text.num_hidden_layers = 2;
  options.text.num_attention_heads = 4;
  options.text.num_key_value_heads = 2;
  options.text.mrope_section = {1, 1, 2};
  options.text.initializer_range = 0.1;
  options.ids.image = 60;
  options.ids.video = 61;
  options.ids.vision_start = 62;
  options.ids.vision_end = 63;
  return qwen::make_config(options);
}

}  // namespace triptych

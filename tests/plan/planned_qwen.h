#pragma once

// A Qwen2.5-VL of 7.9 million parameters, of which weights and activations both count.

#include <filesystem>

#include "base/files.h"
#include "base/json.h"
#include "models/qwen2_5_vl/options.h"

namespace triptych {

inline void write_qwen(const std::filesystem::path& folder, const qwen2_5_vl::Options& options) {
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "config.json", dump_json(qwen2_5_vl::make_config(options)));
}

/// Four vision blocks, six decoder layers. @param tied  embedding and head are one tensor
inline qwen2_5_vl::Options medium_qwen(bool tied) {
  auto options = qwen2_5_vl::preset("qwen2_5_vl_3b");
  auto& vision = options.vision;
  vision.depth = 4;
  vision.hidden_size = 128;
  vision.out_hidden_size = 256;
  vision.intermediate_size = 352;
  vision.num_heads = 4;
  vision.fullatt_block_indexes = {1, 3};
  auto& text = options.text;
  text.vocab_size = 4096;
  text.hidden_size = 256;
  text.intermediate_size = 704;
  text.num_hidden_layers = 6;
  text.num_attention_heads = 4;
  text.num_key_value_heads = 2;
  text.mrope_section = {8, 12, 12};
  text.tie_word_embeddings = tied;
  options.ids.image = 4090;
  options.ids.video = 4091;
  options.ids.vision_start = 4092;
  options.ids.vision_end = 4093;
  return options;
}

inline void write_medium_qwen(const std::filesystem::path& folder, bool tied) {
  write_qwen(folder, medium_qwen(tied));
}

}  // namespace triptych

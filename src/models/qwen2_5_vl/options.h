#pragma once

// Sizes of Qwen2.5-VL and what its config.json says. Source: transformers,
// configuration_qwen2_5_vl.py; report arXiv:2502.13923.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace triptych::qwen2_5_vl {

struct VisionOptions {
  int64_t depth = 32;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 16;
  int64_t in_channels = 3;
  int64_t patch_size = 14;
  int64_t temporal_patch_size = 2;
  int64_t spatial_merge_size = 2;
  int64_t window_size = 112;  ///< pixels
  int64_t out_hidden_size = 0;
  double tokens_per_second = 2;
  std::vector<int64_t> fullatt_block_indexes = {7, 15, 23, 31};
  double rms_norm_eps = 1e-6;  ///< fixed in the reference, not in the file
  double rope_theta = 10000;   ///< likewise

  int64_t head_dim() const { return hidden_size / num_heads; }
  int64_t patch_dim() const { return in_channels * temporal_patch_size * patch_size * patch_size; }
  int64_t cell_patches() const { return spatial_merge_size * spatial_merge_size; }
  bool full_attention(int64_t block) const;
};

struct TextOptions {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  double rms_norm_eps = 0;
  double rope_theta = 1e6;
  std::vector<int64_t> mrope_section = {16, 24, 24};
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;

  int64_t head_dim() const { return hidden_size / num_attention_heads; }
};

/// Ids that the model itself must know.
struct TokenIds {
  int64_t image = 151655;
  int64_t video = 151656;
  int64_t vision_start = 151652;
  int64_t vision_end = 151653;
  int64_t end_of_turn = 151645;
  int64_t end_of_text = 151643;  ///< also the padding
};

/// How text positions go on after a video (docs/spec/qwen2_5_vl.md, 2.7).
enum class VideoPositionRule { kMaxHw, kMaxAll };

struct Options {
  VisionOptions vision;
  TextOptions text;
  TokenIds ids;
  VideoPositionRule video_position_rule = VideoPositionRule::kMaxHw;
};

/// Reads a config.json of either layout: flat (hub) or nested (transformers >= 4.52).
/// @param origin  names the file in messages.
/// @throws Error  for another model, a missing key that has no safe default, or sizes that do not
/// fit together.
Options parse_config(const Json& config, std::string_view origin);

/// A named size: qwen2_5_vl_3b, _7b, _32b, _72b. @throws UsageError naming the known ones.
Options preset(std::string_view name);
std::vector<std::string> preset_names();

/// A config.json in the hub's flat layout, for a model that has no folder to copy it from.
Json make_config(const Options& options);

/// Reports every size in which two descriptions differ; empty when they agree.
std::vector<std::string> differences(const Options& a, const Options& b);

}  // namespace triptych::qwen2_5_vl

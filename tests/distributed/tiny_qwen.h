#pragma once

#include <filesystem>

#include "data/sample.h"

namespace triptych {

struct TinyQwen {
  bool tied = false;  ///< embedding and head are one tensor
  int64_t key_value_heads = 2;
};

/// Writes the config.json of a Qwen2.5-VL small enough for hundreds of runs: 4 vision blocks (the
/// second and the last with full attention), 4 decoder layers, 4 query and 2 key/value heads, a
/// vocabulary and MLP sizes that are no round numbers.
void write_tiny_qwen(const std::filesystem::path& folder, const TinyQwen& settings);

/// Row `index` of the stream: one to three packed samples, of text alone, with several pictures of
/// several windows each, or with a video; lengths and numbers of labels are very unequal, since
/// uniform data hides mistakes of normalisation. Every third row is text alone.
Row tiny_row(int64_t index);

}  // namespace triptych

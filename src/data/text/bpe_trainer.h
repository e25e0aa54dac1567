#pragma once

// Trains a small byte-level vocabulary from texts, for examples and tests that need a tokenizer of
// their own. No libtorch.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/text/tokenizer.h"

namespace triptych {

/// A trained vocabulary: 256 bytes, then the merges' results in rank order, then added tokens.
struct TrainedBpe {
  std::vector<std::string> pieces;                  ///< [ids] bytes of each id
  std::vector<std::pair<int32_t, int32_t>> merges;  ///< ids; merge k makes id 256 + k
  std::vector<AddedToken> added;                    ///< Qwen2.5's 22, ids from pieces.size()
};

/// Joins the most frequent adjacent pair (of equals the one with the lower ids) until the
/// vocabulary has `size` entries or no pair is left that occurs twice. Text is NFC-normalised and
/// cut by Qwen2's pattern. Deterministic: depends on the multiset of texts only, not on their
/// order.
/// @param size  entries without the added tokens, at least 256
TrainedBpe train_bpe(std::span<const std::string> texts, int64_t size);

/// Writes tokenizer.json, vocab.json, merges.txt and tokenizer_config.json; Tokenizer::from_folder
/// and transformers' AutoTokenizer read the folder to the same ids.
void save_tokenizer(const TrainedBpe& bpe, const std::filesystem::path& folder);

}  // namespace triptych

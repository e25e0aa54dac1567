#pragma once

// What the hub's files say, before it becomes a Tokenizer.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/bpe.h"
#include "data/text/piece_pattern.h"
#include "data/text/tokenizer.h"

namespace triptych {

struct TokenizerParts {
  std::string origin;               ///< file or folder, for messages
  std::vector<std::string> pieces;  ///< [ids] bytes; empty where an id stands for nothing mergeable
  std::vector<Bpe::Merge> merges;   ///< in rank order
  std::vector<AddedToken> added;
  PiecePattern pattern{PiecePattern::Kind::kQwen2};
  bool nfc = true;
  bool add_prefix_space = false;  ///< GPT-2's ByteLevel puts a blank before a text without one
  bool whole_first = false;       ///< `ignore_merges`
  bool can_decode = true;
};

/// A `tokenizer.json` in memory. @throws DataError "origin: key.path: ..."
TokenizerParts parse_tokenizer_json(std::string_view json, std::string_view origin);

/// vocab.json, merges.txt and tokenizer_config.json of a folder.
TokenizerParts read_vocab_and_merges(const std::filesystem::path& folder);

/// A rank file; the merge behind each token is the pair its bytes reduce to under lower ranks.
TokenizerParts read_ranks(const std::filesystem::path& file, std::span<const AddedToken> added);

/// Builds `pieces` and `merges` from the strings of vocabulary files.
class VocabularyBuilder {
 public:
  explicit VocabularyBuilder(std::string_view origin) : origin_(origin) {}

  /// One entry in the byte alphabet; `place` stands in messages.
  void add(std::string_view token, int64_t id, std::string_view place);
  void merge(std::string_view left, std::string_view right, std::string_view place);

  std::vector<std::string> take_pieces() { return std::move(pieces_); }
  std::vector<Bpe::Merge> take_merges() { return std::move(merges_); }

 private:
  int32_t id_of(std::string_view token, std::string_view place) const;

  std::string origin_;
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<std::string> pieces_;
  std::vector<Bpe::Merge> merges_;
  mutable std::string key_;
};

}  // namespace triptych

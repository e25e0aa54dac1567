#pragma once

// Byte-level BPE as Qwen2, Llama-3 and GPT-2 use it, read from the hub's files. No libtorch.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// A token that is cut out of the text before anything else happens to it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;     ///< left out by decode with skip_special_tokens
  bool lstrip = false;      ///< takes the white space before it
  bool rstrip = false;      ///< takes the white space after it
  bool normalized = false;  ///< looked for after normalisation

  bool operator==(const AddedToken&) const = default;
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

/// Text to ids and back; equal to Hugging Face `tokenizers` with add_special_tokens = false.
///
///   split out added tokens (longest match) -> NFC -> cut into pieces by the model's pattern
///   -> bytes -> merge adjacent pairs, lowest rank first, inside each piece
///
/// The patterns of GPT-2, Llama-3 and Qwen2 run in a hand-written scanner with the Unicode tables
/// of the reference; others through PCRE2. Normalisers, pre-tokenisers and decoders that are not
/// known are refused by name.
///
/// Threads: any number may call any const function at once; each call borrows a scratch space with
/// its own cache of pieces.
class Tokenizer {
 public:
  /// Reads `tokenizer.json`, or `vocab.json` + `merges.txt` (+ `tokenizer_config.json`) of a
  /// folder.
  /// @throws DataError  naming file and place.
  static Tokenizer from_folder(const std::filesystem::path& folder);

  /// Reads one `tokenizer.json`.
  static Tokenizer from_json_file(const std::filesystem::path& file);

  /// The same from memory; `origin` stands for the file in messages.
  static Tokenizer from_json(std::string_view json, std::string_view origin);

  /// Reads a rank file: a base64 token and its rank on each line (`qwen.tiktoken`). The pattern is
  /// Qwen2's, with NFC; added tokens are what the caller gives.
  static Tokenizer from_rank_file(const std::filesystem::path& file,
                                  std::span<const AddedToken> added);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Ids of a text. Nothing is added at either end; added tokens in the text are recognised.
  /// @throws DataError  on malformed UTF-8 (with its offset), or a byte the vocabulary lacks.
  std::vector<int32_t> encode(std::string_view text) const;

  /// The same, appended to `ids`.
  void encode_to(std::string_view text, std::vector<int32_t>& ids) const;

  /// Text of ids. Malformed UTF-8 becomes U+FFFD; ids that stand for no text give nothing.
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options = {}) const;

  /// Bytes an id stands for, added tokens verbatim; empty for an id that stands for no text.
  std::string_view bytes_of(int32_t id) const;

  /// Id of an added token, or of a vocabulary entry given as its bytes.
  std::optional<int32_t> id_of(std::string_view token) const;

  /// id_of, or DataError naming the token.
  int32_t require_id(std::string_view token) const;

  /// What NFC (or nothing, if the model has no normaliser) makes of a text.
  std::string normalize(std::string_view text) const;

  const std::vector<AddedToken>& added_tokens() const;
  bool is_special(int32_t id) const;

  /// One more than the largest id.
  int64_t size() const;

  /// Where it came from.
  const std::string& origin() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Turns a growing list of ids into text without ever printing half a character: the parts joined,
/// finish() included, equal Tokenizer::decode of all ids. One thread; the tokenizer must outlive
/// it.
class StreamingDecoder {
 public:
  explicit StreamingDecoder(const Tokenizer& tokenizer, const DecodeOptions& options = {})
      : tokenizer_(&tokenizer), options_(options) {}

  /// Text that is complete with this id; may be empty.
  std::string add(int32_t id);

  /// What was held back, with U+FFFD for the character that never came.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  std::string held_;
};

/// The 22 added tokens of Qwen2.5 and Qwen2.5-VL, the first with id `first_id` (151643 on the hub).
std::vector<AddedToken> qwen2_5_added_tokens(int32_t first_id);

}  // namespace triptych

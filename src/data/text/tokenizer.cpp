#include "data/text/tokenizer.h"

#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/utf8.h"
#include "data/text/added_tokens.h"
#include "data/text/bpe.h"
#include "data/text/normalizer.h"
#include "data/text/tokenizer_parts.h"

namespace triptych {
namespace {

/// What one call of encode works with; kept between calls for its cache.
struct Scratch {
  PieceCache cache;
  std::string normalized, prefixed;
};

/// Hands a scratch to one call at a time: a lock per text, none per piece.
class ScratchPool {
 public:
  std::unique_ptr<Scratch> borrow() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>();
    auto scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

std::string nfc(std::string_view text) {
  std::string storage;
  return std::string(to_nfc(text, storage));
}

AddedTokenFinder finder(const TokenizerParts& parts, bool normalized) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> contents;
  for (const auto& token : parts.added) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    contents.push_back(normalized && parts.nfc ? nfc(token.content) : token.content);
  }
  return {tokens, contents};
}

}  // namespace

struct Tokenizer::Impl {
  std::string origin;
  std::vector<AddedToken> added;
  AddedTokenFinder raw_finder, normalized_finder;
  PiecePattern pattern;
  bool nfc, add_prefix_space, can_decode;
  Bpe bpe;
  std::unordered_map<std::string_view, int32_t> added_ids;
  std::unordered_map<int32_t, const AddedToken*> added_by_id;
  int64_t size = 0;
  mutable ScratchPool scratches;

  explicit Impl(TokenizerParts parts)
      : origin(parts.origin),
        added(parts.added),
        raw_finder(finder(parts, false)),
        normalized_finder(finder(parts, true)),
        pattern(std::move(parts.pattern)),
        nfc(parts.nfc),
        add_prefix_space(parts.add_prefix_space),
        can_decode(parts.can_decode),
        bpe(std::move(parts.pieces), parts.merges, parts.whole_first),
        size(bpe.size()) {
    for (const auto& token : added) {
      added_ids.emplace(token.content, token.id);
      added_by_id.emplace(token.id, &token);
      size = std::max<int64_t>(size, int64_t{token.id} + 1);
    }
  }

  /// A stretch without added tokens, normalised.
  void encode_plain(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
    if (add_prefix_space && text.front() != ' ') {
      scratch.prefixed = " ";
      scratch.prefixed += text;
      text = scratch.prefixed;
    }
    const char* end = text.data() + text.size();
    pattern.pieces(text, [&](std::string_view piece) {
      scratch.cache.encode(bpe, piece, static_cast<size_t>(end - piece.data()), ids);
    });
  }

  void encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const {
    const auto put = [&](const AddedToken& token) { ids.push_back(token.id); };
    raw_finder.split(
        text,
        [&](std::string_view gap) {
          if (nfc) gap = to_nfc(gap, scratch.normalized);
          if (normalized_finder.empty()) return encode_plain(gap, scratch, ids);
          normalized_finder.split(
              gap, [&](std::string_view rest) { encode_plain(rest, scratch, ids); }, put);
        },
        put);
  }
};

namespace {

void check_added_tokens(const TokenizerParts& parts) {
  std::unordered_map<std::string_view, int32_t> contents;
  std::unordered_map<int32_t, std::string_view> ids;
  for (const auto& token : parts.added) {
    require<DataError>(!token.content.empty(), parts.origin, ": added token ", token.id,
                       " has no content");
    require<DataError>(first_bad_utf8(token.content) == token.content.size(), parts.origin,
                       ": added token ", token.id, " is not UTF-8");
    require<DataError>(token.id >= 0 && token.id <= kMaxTokenId, parts.origin, ": added token '",
                       token.content, "' has id ", token.id, ", outside 0..", kMaxTokenId);
    require<DataError>(contents.emplace(token.content, token.id).second, parts.origin,
                       ": added token '", token.content, "' occurs twice");
    const auto [owner, is_new] = ids.emplace(token.id, token.content);
    require<DataError>(is_new, parts.origin, ": id ", token.id, " belongs to the added tokens '",
                       owner->second, "' and '", token.content, "'");
    if (static_cast<size_t>(token.id) < parts.pieces.size()) {
      const std::string& piece = parts.pieces[token.id];
      require<DataError>(piece.empty() || piece == token.content, parts.origin, ": id ", token.id,
                         " is the added token '", token.content,
                         "' but another one in the vocabulary");
    }
  }
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  const auto file = folder / "tokenizer.json";
  if (std::filesystem::exists(file)) return from_json_file(file);
  require<DataError>(std::filesystem::exists(folder / "vocab.json") &&
                         std::filesystem::exists(folder / "merges.txt"),
                     folder.string(),
                     ": no tokenizer: neither tokenizer.json nor vocab.json with merges.txt");
  auto parts = read_vocab_and_merges(folder);
  check_added_tokens(parts);
  return Tokenizer(std::make_unique<Impl>(std::move(parts)));
}

Tokenizer Tokenizer::from_json_file(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  return from_json(mapped.text(), file.string());
}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view origin) {
  auto parts = parse_tokenizer_json(json, origin);
  check_added_tokens(parts);
  return Tokenizer(std::make_unique<Impl>(std::move(parts)));
}

Tokenizer Tokenizer::from_rank_file(const std::filesystem::path& file,
                                    std::span<const AddedToken> added) {
  auto parts = read_ranks(file, added);
  check_added_tokens(parts);
  return Tokenizer(std::make_unique<Impl>(std::move(parts)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode_to(text, ids);
  return ids;
}

void Tokenizer::encode_to(std::string_view text, std::vector<int32_t>& ids) const {
  const size_t bad = first_bad_utf8(text);
  require<DataError>(bad == text.size(), "text is not UTF-8 at byte ", bad, " of ", text.size());
  if (ids.empty()) ids.reserve(text.size() / 3);
  auto scratch = impl_->scratches.borrow();
  impl_->encode(text, *scratch, ids);  // on an error the scratch is dropped
  impl_->scratches.give_back(std::move(scratch));
}

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  require<DataError>(impl_->can_decode, impl_->origin, ": has no decoder");
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(options.skip_special_tokens && is_special(id))) bytes += bytes_of(id);
  }
  return repair_utf8(bytes);
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  if (const auto found = impl_->added_by_id.find(id); found != impl_->added_by_id.end()) {
    return found->second->content;
  }
  return id >= 0 && id < impl_->bpe.size() ? impl_->bpe.bytes_of(id) : std::string_view();
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  if (const auto found = impl_->added_ids.find(token); found != impl_->added_ids.end()) {
    return found->second;
  }
  const int32_t id = impl_->bpe.find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

int32_t Tokenizer::require_id(std::string_view token) const {
  const auto id = id_of(token);
  require<DataError>(id.has_value(), impl_->origin, ": the tokenizer has no token '", token, "'");
  return *id;
}

std::string Tokenizer::normalize(std::string_view text) const {
  const size_t bad = first_bad_utf8(text);
  require<DataError>(bad == text.size(), "text is not UTF-8 at byte ", bad, " of ", text.size());
  return impl_->nfc ? nfc(text) : std::string(text);
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added; }

bool Tokenizer::is_special(int32_t id) const {
  const auto found = impl_->added_by_id.find(id);
  return found != impl_->added_by_id.end() && found->second->special;
}

int64_t Tokenizer::size() const { return impl_->size; }
const std::string& Tokenizer::origin() const { return impl_->origin; }

std::string StreamingDecoder::add(int32_t id) {
  if (options_.skip_special_tokens && tokenizer_->is_special(id)) return {};
  held_ += tokenizer_->bytes_of(id);
  const size_t tail = incomplete_utf8_tail(held_);
  std::string whole = repair_utf8(std::string_view(held_).substr(0, held_.size() - tail));
  held_.erase(0, held_.size() - tail);
  return whole;
}

std::string StreamingDecoder::finish() { return repair_utf8(std::exchange(held_, {})); }

std::vector<AddedToken> qwen2_5_added_tokens(int32_t first_id) {
  constexpr std::string_view kContents[] = {
      "<|endoftext|>",      "<|im_start|>",     "<|im_end|>",     "<|object_ref_start|>",
      "<|object_ref_end|>", "<|box_start|>",    "<|box_end|>",    "<|quad_start|>",
      "<|quad_end|>",       "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
      "<|image_pad|>",      "<|video_pad|>",    "<tool_call>",    "</tool_call>",
      "<|fim_prefix|>",     "<|fim_middle|>",   "<|fim_suffix|>", "<|fim_pad|>",
      "<|repo_name|>",      "<|file_sep|>"};
  constexpr size_t kSpecial = 14;  // the tool calls and what follows stay in decoded text
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < std::size(kContents); ++i) {
    tokens.push_back({.id = first_id + static_cast<int32_t>(i),
                      .content = std::string(kContents[i]),
                      .special = i < kSpecial});
  }
  return tokens;
}

}  // namespace triptych

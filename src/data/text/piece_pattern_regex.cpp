// Patterns that are not among the published ones, through PCRE2.

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "data/text/piece_pattern.h"

namespace triptych {
namespace {

constexpr std::pair<PiecePattern::Kind, std::string_view> kPublished[] = {
    {PiecePattern::Kind::kQwen2,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PiecePattern::Kind::kLlama3,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {PiecePattern::Kind::kGpt2,
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
};

constexpr uint32_t kMatchLimit = 10'000'000;  // steps for one piece; a sane pattern needs a few

/// PCRE2's own \s is ASCII without UCP, and with it takes U+180E for white space; the reference
/// does neither. \h is a hexadecimal digit there, horizontal space here.
std::string in_pcre2_words(std::string_view regex, std::string_view origin) {
  std::string out;
  for (size_t i = 0; i < regex.size(); ++i) {
    if (regex[i] != '\\' || i + 1 == regex.size()) {
      out += regex[i];
      continue;
    }
    const char c = regex[++i];
    require<DataError>(c != 'h' && c != 'H', origin, ": the pattern's \\", c,
                       " is not supported; pattern ", regex);
    if (c == 's' || c == 'S') {
      out += c == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace

struct PiecePattern::Regex {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  std::string origin;

  Regex() = default;
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;
  ~Regex() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

PiecePattern::PiecePattern(Kind kind) : kind_(kind) {}
PiecePattern::PiecePattern(PiecePattern&&) noexcept = default;
PiecePattern& PiecePattern::operator=(PiecePattern&&) noexcept = default;
PiecePattern::~PiecePattern() = default;

PiecePattern::PiecePattern(std::string_view regex, std::string_view origin) : kind_(Kind::kOther) {
  for (const auto& [kind, text] : kPublished) {
    if (regex == text) {
      kind_ = kind;
      return;
    }
  }
  const std::string pattern = in_pcre2_words(regex, origin);
  regex_ = std::make_unique<Regex>();
  regex_->origin = origin;
  int error = 0;
  size_t offset = 0;
  // Multiline and "UCP": ^ $ \d \w as the reference's engine has them.
  regex_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                               &error, &offset, nullptr);
  if (regex_->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> words{};
    pcre2_get_error_message(error, words.data(), words.size());
    fail<DataError>(origin, ": pattern ", regex, ": ", reinterpret_cast<const char*>(words.data()),
                    " at offset ", offset);
  }
  pcre2_jit_compile(regex_->code, PCRE2_JIT_COMPLETE);  // a refusal only means slower
  regex_->context = pcre2_match_context_create(nullptr);
  require(regex_->context != nullptr, origin, ": no memory for the pattern's matcher");
  pcre2_set_match_limit(regex_->context, kMatchLimit);
}

std::string_view PiecePattern::regex_of(Kind kind) {
  for (const auto& [known, text] : kPublished) {
    if (known == kind) return text;
  }
  return {};
}

PiecePattern::Matcher::Matcher(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      match_(pcre2_match_data_create_from_pattern(regex.code, nullptr)) {
  require(match_ != nullptr, regex.origin, ": no memory for a match");
}

PiecePattern::Matcher::~Matcher() { pcre2_match_data_free(static_cast<pcre2_match_data*>(match_)); }

size_t PiecePattern::Matcher::next(size_t begin) {
  // A match is a piece and so is what lies between two; an empty match only cuts.
  size_t from = begin;
  while (!exhausted_) {
    if (has_match_) {
      if (match_begin_ > begin) return match_begin_;
      if (match_end_ > begin) {
        has_match_ = false;
        return match_end_;
      }
      from = match_end_;
      if (match_begin_ == match_end_) {  // empty, and already behind: look one character further
        do ++from;
        while (from < text_.size() && (static_cast<unsigned char>(text_[from]) & 0xC0) == 0x80);
      }
      has_match_ = false;
    }
    if (from > text_.size()) {
      exhausted_ = true;
      break;
    }
    auto* match = static_cast<pcre2_match_data*>(match_);
    const int found = pcre2_match(regex_.code, reinterpret_cast<PCRE2_SPTR>(text_.data()),
                                  text_.size(), from, PCRE2_NO_UTF_CHECK, match, regex_.context);
    if (found == PCRE2_ERROR_NOMATCH) {
      exhausted_ = true;
      break;
    }
    require<DataError>(found >= 0, regex_.origin, ": the pattern gave up at byte ", from,
                       " of a text (PCRE2 error ", found, "; limit ", kMatchLimit, " steps)");
    const size_t* where = pcre2_get_ovector_pointer(match);
    match_begin_ = where[0];
    match_end_ = where[1];
    has_match_ = true;
    // \K in a lookaround can put the start behind the end or before the search.
    require<DataError>(match_begin_ >= begin && match_end_ >= match_begin_, regex_.origin,
                       ": the pattern matches backwards at byte ", from, " of a text");
  }
  return text_.size();
}

}  // namespace triptych

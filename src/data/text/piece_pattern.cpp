#include "data/text/piece_pattern.h"

#include "base/utf8.h"
#include "data/text/char_class.h"

namespace triptych {
namespace detail {
namespace {

using Kind = PiecePattern::Kind;

/// A look at the text with the class of the character at each place.
class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text) {}

  struct Here {
    CharClass kind;
    size_t next;  ///< where the following character begins
  };

  bool done(size_t at) const { return at >= text_.size(); }
  char byte(size_t at) const { return at < text_.size() ? text_[at] : '\0'; }

  Here here(size_t at) const {
    const CodePoint c = read_code_point(text_.data() + at);
    return {classes_[c.value], at + c.size};
  }

  bool is(CharClass kind, size_t at) const { return !done(at) && here(at).kind == kind; }

  /// First place from `at` on whose character is not of this kind; looks at no more than `limit`.
  size_t run(CharClass kind, size_t at, size_t limit = SIZE_MAX) const {
    for (; limit > 0 && !done(at); --limit) {
      const Here h = here(at);
      if (h.kind != kind) break;
      at = h.next;
    }
    return at;
  }

 private:
  std::string_view text_;
  const CharClass* classes_ = char_classes();
};

bool newline(char c) { return c == '\r' || c == '\n'; }

/// End of a contraction ('s 't 'm 'd 're 've 'll) whose apostrophe is at `at`, or `at`.
size_t contraction(const Scan& s, size_t at, bool any_case) {
  const auto letter = [&](size_t i) {
    const char c = s.byte(i);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  };
  const char a = letter(at + 1), b = letter(at + 2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  // The reference folds U+017F, the long s, to s; no other character folds to one of these letters.
  if (any_case && a == '\xC5' && s.byte(at + 2) == '\xBF') return at + 3;
  return at;
}

/// White space: up to and with its last line break (unless `breaks` is false); else all of it at
/// the end of the text; else all but the last, which goes with the word that follows.
size_t space_end(const Scan& s, size_t at, bool breaks) {
  size_t end = at, last = at, after_break = 0;
  while (!s.done(end)) {
    const auto h = s.here(end);
    if (h.kind != CharClass::kSpace) break;
    if (newline(s.byte(end))) after_break = h.next;
    last = end;
    end = h.next;
  }
  if (breaks && after_break > 0) return after_break;
  return s.done(end) || last == at ? end : last;
}

}  // namespace

template <PiecePattern::Kind kind>
size_t piece_end(std::string_view text, size_t at) {
  constexpr bool gpt2 = kind == Kind::kGpt2;
  const Scan s(text);
  const char c = text[at];
  if (c == '\'') {
    const size_t end = contraction(s, at, !gpt2);
    if (end != at) return end;
  }
  const auto h = s.here(at);
  if (h.kind == CharClass::kLetter) return s.run(CharClass::kLetter, h.next);
  if (h.kind == CharClass::kNumber) {
    if constexpr (kind == Kind::kQwen2) return h.next;
    return s.run(CharClass::kNumber, h.next, gpt2 ? SIZE_MAX : 2);
  }
  if constexpr (gpt2) {
    if (c == ' ' && !s.done(h.next)) {
      const CharClass next = s.here(h.next).kind;
      if (next != CharClass::kSpace) return s.run(next, h.next);
    }
    if (h.kind == CharClass::kOther) return s.run(CharClass::kOther, h.next);
    return space_end(s, at, false);
  } else {
    // One character that is no line break goes with the letters after it.
    if (!newline(c) && s.is(CharClass::kLetter, h.next)) return s.run(CharClass::kLetter, h.next);
    if (h.kind == CharClass::kOther || (c == ' ' && s.is(CharClass::kOther, h.next))) {
      size_t end = s.run(CharClass::kOther, h.next);
      while (newline(s.byte(end))) ++end;
      return end;
    }
    return space_end(s, at, true);
  }
}

template size_t piece_end<Kind::kGpt2>(std::string_view, size_t);
template size_t piece_end<Kind::kLlama3>(std::string_view, size_t);
template size_t piece_end<Kind::kQwen2>(std::string_view, size_t);

}  // namespace detail
}  // namespace triptych

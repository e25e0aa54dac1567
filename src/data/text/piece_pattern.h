#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace triptych {

/// The rule that cuts text into the pieces within which merges happen.
///
/// The three published patterns run in a hand-written scanner: exact on the reference's Unicode
/// version and several times as fast as a regex engine. Any other runs in PCRE2.
class PiecePattern {
 public:
  enum class Kind {
    kGpt2,    ///< words and numbers of any length with a leading blank; case-sensitive 's 't ...
    kLlama3,  ///< like Qwen2, digits in groups of up to three
    kQwen2,   ///< digits one by one
    kOther,   ///< PCRE2
  };

  /// A published pattern is recognised by its text.
  /// @throws DataError  when it does not compile; `origin` is what the message calls the file.
  PiecePattern(std::string_view regex, std::string_view origin);
  explicit PiecePattern(Kind kind);
  PiecePattern(PiecePattern&&) noexcept;
  PiecePattern& operator=(PiecePattern&&) noexcept;
  ~PiecePattern();

  Kind kind() const { return kind_; }

  /// Runs one piece after another past `each(std::string_view)`; the pieces joined are the text.
  /// The text is well-formed UTF-8.
  template <class Each>
  void pieces(std::string_view text, Each each) const;

  /// Text of a published pattern.
  static std::string_view regex_of(Kind kind);

 private:
  struct Regex;
  class Matcher {  // state of one pass with PCRE2
   public:
    Matcher(const Regex& regex, std::string_view text);
    ~Matcher();
    /// End of the next piece that begins at `begin`.
    size_t next(size_t begin);

   private:
    const Regex& regex_;
    std::string_view text_;
    void* match_;
    size_t match_begin_ = 0, match_end_ = 0;
    bool has_match_ = false, exhausted_ = false;
  };

  Kind kind_;
  std::unique_ptr<Regex> regex_;
};

namespace detail {
/// End of the piece of a published pattern that begins at `at` < text.size().
template <PiecePattern::Kind kind>
size_t piece_end(std::string_view text, size_t at);
extern template size_t piece_end<PiecePattern::Kind::kGpt2>(std::string_view, size_t);
extern template size_t piece_end<PiecePattern::Kind::kLlama3>(std::string_view, size_t);
extern template size_t piece_end<PiecePattern::Kind::kQwen2>(std::string_view, size_t);
}  // namespace detail

template <class Each>
void PiecePattern::pieces(std::string_view text, Each each) const {
  const auto run = [&](auto end_of) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = end_of(at);
      each(text.substr(at, end - at));
      at = end;
    }
  };
  switch (kind_) {
    case Kind::kGpt2:
      return run([&](size_t at) { return detail::piece_end<Kind::kGpt2>(text, at); });
    case Kind::kLlama3:
      return run([&](size_t at) { return detail::piece_end<Kind::kLlama3>(text, at); });
    case Kind::kQwen2:
      return run([&](size_t at) { return detail::piece_end<Kind::kQwen2>(text, at); });
    case Kind::kOther: {
      Matcher matcher(*regex_, text);
      return run([&](size_t at) { return matcher.next(at); });
    }
  }
}

}  // namespace triptych

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/flat_map.h"
#include "data/text/tokenizer.h"

namespace triptych {

/// Finds added tokens in a text: at the leftmost place where one begins, the longest.
class AddedTokenFinder {
 public:
  /// `contents[i]` is what token i looks like in the text that will be searched.
  AddedTokenFinder(std::span<const AddedToken> tokens, std::span<const std::string> contents);

  struct Match {
    size_t begin, end;  ///< of the token itself; begin == text.size(): there is none
    const AddedToken* token;
  };

  /// The first match at or after `from`.
  Match next(std::string_view text, size_t from) const;

  /// Runs gap(text) and token(token) over a text in order; empty gaps are left out.
  template <class Gap, class Token>
  void split(std::string_view text, Gap gap, Token token) const {
    size_t done = 0, from = 0;
    while (from < text.size()) {
      const Match m = next(text, from);
      if (m.token == nullptr) break;
      from = m.end;
      size_t begin = m.begin, end = m.end;
      if (m.token->lstrip) begin = std::max(done, without_space_before(text, begin));
      if (m.token->rstrip) end = with_space_after(text, end);
      if (begin > done) gap(text.substr(done, begin - done));
      token(*m.token);
      done = std::max(done, end);
    }
    if (done < text.size()) gap(text.substr(done));
  }

  bool empty() const { return tokens_.empty(); }

 private:
  static size_t without_space_before(std::string_view text, size_t end);
  static size_t with_space_after(std::string_view text, size_t begin);

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> starts_{};  // bytes that a token begins with
  int only_start_ = -1;             // when there is just one such byte
  FlatMap<int32_t> children_;       // trie: node * 256 + byte -> node
  std::vector<int32_t> ends_;       // node -> token that ends there, or -1
};

}  // namespace triptych

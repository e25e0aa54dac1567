#include "data/text/added_tokens.h"

#include <cstring>

#include "base/utf8.h"
#include "data/text/char_class.h"

namespace triptych {

AddedTokenFinder::AddedTokenFinder(std::span<const AddedToken> tokens,
                                   std::span<const std::string> contents)
    : tokens_(tokens.begin(), tokens.end()), ends_{-1} {
  for (size_t i = 0; i < contents.size(); ++i) {
    uint64_t node = 0;
    for (const char c : contents[i]) {
      const uint64_t key = node << 8 | static_cast<unsigned char>(c);
      int32_t& child = children_[key];
      if (child == 0) {  // the root is nobody's child
        child = static_cast<int32_t>(ends_.size());
        ends_.push_back(-1);
      }
      node = static_cast<uint64_t>(child);
    }
    if (ends_[node] < 0) ends_[node] = static_cast<int32_t>(i);
    starts_[static_cast<unsigned char>(contents[i][0])] = true;
  }
  if (std::count(starts_.begin(), starts_.end(), true) == 1) {
    only_start_ =
        static_cast<int>(std::find(starts_.begin(), starts_.end(), true) - starts_.begin());
  }
}

AddedTokenFinder::Match AddedTokenFinder::next(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (only_start_ >= 0) {
      const void* found = std::memchr(text.data() + at, only_start_, text.size() - at);
      if (found == nullptr) break;
      at = static_cast<size_t>(static_cast<const char*>(found) - text.data());
    } else if (!starts_[static_cast<unsigned char>(text[at])]) {
      continue;
    }
    uint64_t node = 0;
    Match best{text.size(), text.size(), nullptr};
    for (size_t i = at; i < text.size(); ++i) {
      const int32_t* child = children_.find(node << 8 | static_cast<unsigned char>(text[i]));
      if (child == nullptr) break;
      node = static_cast<uint64_t>(*child);
      if (ends_[node] >= 0) best = {at, i + 1, &tokens_[ends_[node]]};
    }
    if (best.token != nullptr) return best;
  }
  return {text.size(), text.size(), nullptr};
}

size_t AddedTokenFinder::without_space_before(std::string_view text, size_t end) {
  while (end > 0) {
    size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (char_classes()[read_code_point(text.data() + begin).value] != CharClass::kSpace) break;
    end = begin;
  }
  return end;
}

size_t AddedTokenFinder::with_space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = read_code_point(text.data() + begin);
    if (char_classes()[c.value] != CharClass::kSpace) break;
    begin += c.size;
  }
  return begin;
}

}  // namespace triptych

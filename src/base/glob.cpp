#include "base/glob.h"

namespace triptych {

namespace {

/// One character of the pattern: itself, any, or one of a class.
struct Unit {
  bool matches = false;
  size_t end = 0;  ///< behind it in the pattern
};

Unit match_one(std::string_view pattern, size_t p, char c) {
  const auto close = pattern[p] == '[' ? pattern.find(']', p + 2) : std::string_view::npos;
  if (close == std::string_view::npos) return {pattern[p] == '?' || pattern[p] == c, p + 1};
  const bool others = pattern[p + 1] == '!';
  bool found = false;
  for (size_t i = p + (others ? 2 : 1); i < close; ++i) {
    const bool range = i + 2 < close && pattern[i + 1] == '-';
    found = found || (c >= pattern[i] && c <= pattern[range ? i + 2 : i]);
    if (range) i += 2;
  }
  return {found != others, close + 1};
}

}  // namespace

bool glob_match(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
      continue;
    }
    if (const auto unit = p < pattern.size() ? match_one(pattern, p, text[t]) : Unit();
        unit.matches) {
      p = unit.end;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace triptych

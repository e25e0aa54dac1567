#include "data/text/char_class.h"

#include <algorithm>
#include <vector>

namespace triptych {
namespace {

struct Range {
  uint32_t first, last;
  CharClass kind;
};

constexpr Range kRanges[] = {
#include "data/text/unicode_classes.inc"
};

}  // namespace

const CharClass* char_classes() {
  // One byte a code point instead of two stages: a text touches few of its pages, and one load less
  // on every character counts.
  static const auto table = [] {
    std::vector<CharClass> classes(0x110000, CharClass::kOther);
    for (const Range& r : kRanges) {
      std::fill(classes.begin() + r.first, classes.begin() + r.last + 1, r.kind);
    }
    return classes;
  }();
  return table.data();
}

}  // namespace triptych

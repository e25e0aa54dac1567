#include "parallel/layout_rules.h"

#include "base/format.h"

namespace triptych {

namespace {

/// The sizes of a group that would do, those up to `most`.
std::string divisors(int64_t number, int64_t most) {
  std::string text;
  for (int64_t d = 1; d <= number && d <= most; ++d) {
    if (number % d == 0) text += fmt::format("{}{}", text.empty() ? "" : ", ", d);
  }
  return text;
}

}  // namespace

void validate_tensor(const LayerSizes& sizes, int64_t tensor, Problems& problems) {
  constexpr int64_t kMostNamed = 64;
  const auto divides = [&](int64_t number, const char* what) {
    problems.check(number % tensor == 0, "parallel: ", sizes.name, " ", what, " ", number,
                   " not divisible by tensor ", tensor,
                   "; allowed: ", divisors(number, kMostNamed));
  };
  divides(sizes.heads, "heads");
  const int64_t k = sizes.key_value_heads;
  problems.check(k == sizes.heads || k % tensor == 0 || tensor % k == 0, "parallel: ", sizes.name,
                 " key/value heads ", k, " and tensor ", tensor, ": neither divides the other");
  divides(sizes.mlp, "MLP size");
}

}  // namespace triptych

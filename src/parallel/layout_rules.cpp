#include "parallel/layout_rules.h"

#include <algorithm>

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

int64_t ulysses_size(const ParallelOptions& options, int64_t query_heads) {
  switch (options.context_algorithm) {
    case ContextAlgorithm::kRing:
      return 1;
    case ContextAlgorithm::kHybrid:
      if (options.ulysses_degree > 0) return options.ulysses_degree;
      for (int64_t size = std::min(options.context, query_heads); size > 1; --size) {
        if (options.context % size == 0) return size;
      }
      return 1;
    case ContextAlgorithm::kUlysses:
    case ContextAlgorithm::kDsp:  // all tokens of a sample see each other: no dim is free
      break;
  }
  return options.context;
}

void validate_context(const LayerSizes& sizes, const ParallelOptions& options, Problems& problems) {
  if (options.context == 1) return;
  const int64_t heads = sizes.heads / options.tensor, ulysses = ulysses_size(options, heads);
  problems.check(ulysses <= heads, "parallel: ulysses degree ", ulysses, " exceeds the ", heads,
                 " query heads of the ", sizes.name, " model on a rank (", sizes.heads,
                 " heads / tensor ", options.tensor,
                 "); use context_algorithm = \"ring\", or \"hybrid\" with a smaller degree");
}

std::string context_advice(const LayerSizes& sizes, const ParallelOptions& options) {
  const int64_t heads = sizes.heads / options.tensor, ulysses = ulysses_size(options, heads);
  if (ulysses > heads || heads % ulysses == 0) return "";
  const int64_t most = heads / ulysses + 1;
  return fmt::format(
      "parallel: {} heads on {} Ulysses ranks: the busiest has {}, {:.0f} % above the mean", heads,
      ulysses, most,
      100.0 * static_cast<double>(most * ulysses - heads) / static_cast<double>(heads));
}

}  // namespace triptych

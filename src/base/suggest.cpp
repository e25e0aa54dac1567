#include "base/suggest.h"

#include <algorithm>
#include <vector>

namespace triptych {

int edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the optimal string alignment table: two back (for swaps), one back, current.
  std::vector<int> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replace, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string nearest_name(std::string_view name, std::span<const std::string> candidates) {
  const int length = static_cast<int>(name.size());
  std::string best;
  int best_distance = length + 1;
  for (const std::string& candidate : candidates) {
    const int longer = std::max(length, static_cast<int>(candidate.size()));
    const int allowed = longer < 4 ? 1 : std::max(2, length / 3);
    // A name that was cut short or written out counts as near too: "warmup" for "warmup_steps".
    const bool prefix = length >= 3 && (candidate.starts_with(name) || name.starts_with(candidate));
    const int distance = prefix ? 1 : edit_distance(name, candidate);
    if (distance <= allowed && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string join_names(std::span<const std::string> names, std::string_view last) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? last : std::string_view(", ");
    text += names[i];
  }
  return text;
}

}  // namespace triptych

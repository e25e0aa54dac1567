#include "insight/memory_categories.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace triptych::insight {

ShownCategories::ShownCategories(const std::map<std::string, int64_t>& bytes) {
  std::vector<std::pair<std::string, int64_t>> order;
  for (const auto& category : bytes)
    if (category.first != "module" && category.first != "bytes" && category.first != "share")
      order.push_back(category);
  std::ranges::stable_sort(order, std::ranges::greater(), &std::pair<std::string, int64_t>::second);
  if (order.size() > kMostCategories) order.resize(kMostCategories);
  for (auto& [name, size] : order) shown_.insert(std::move(name));
}

std::map<std::string, int64_t> shown_sums(const std::map<std::string, int64_t>& bytes) {
  const ShownCategories shown(bytes);
  std::map<std::string, int64_t> sums;
  for (const auto& [category, size] : bytes) sums[shown.shown_as(category)] += size;
  return sums;
}

}  // namespace triptych::insight

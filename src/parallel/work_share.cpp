#include "parallel/work_share.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace triptych {

std::vector<int64_t> share_by_cost(std::span<const double> costs, int64_t ranks) {
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  std::vector<int64_t> rank_of_item(costs.size());
  for (const auto item : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += costs[item];
    rank_of_item[item] = least - load.begin();
  }
  return rank_of_item;
}

std::vector<int64_t> cut_by_cost(std::span<const double> costs, int64_t ranks) {
  const double total = std::accumulate(costs.begin(), costs.end(), 0.0);
  std::vector<int64_t> bounds{0};
  double before = 0;  // cost of the items before `item`
  size_t item = 0;
  for (int64_t rank = 1; rank < ranks; ++rank) {
    const double target = total * static_cast<double>(rank) / static_cast<double>(ranks);
    // An item goes to the side on which more of it lies.
    while (item < costs.size() && before + costs[item] / 2 < target) before += costs[item++];
    bounds.push_back(static_cast<int64_t>(item));
  }
  bounds.push_back(static_cast<int64_t>(costs.size()));
  return bounds;
}

double imbalance(std::span<const double> costs, std::span<const int64_t> rank_of_item,
                 int64_t ranks) {
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  for (size_t i = 0; i < costs.size(); ++i) load[static_cast<size_t>(rank_of_item[i])] += costs[i];
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  if (total <= 0) return 1;
  return *std::max_element(load.begin(), load.end()) * static_cast<double>(ranks) / total;
}

RoutePlan plan_route(std::span<const std::vector<int64_t>> held,
                     std::span<const std::vector<int64_t>> needed, int64_t items, int64_t rank) {
  struct Place {
    int64_t rank = -1, row = 0;
  };
  std::vector<Place> place(static_cast<size_t>(items));
  for (size_t r = 0; r < held.size(); ++r) {
    for (size_t row = 0; row < held[r].size(); ++row)
      place[static_cast<size_t>(held[r][row])] = {static_cast<int64_t>(r),
                                                  static_cast<int64_t>(row)};
  }
  RoutePlan plan;
  for (const auto& wanted : needed) {
    int64_t count = 0;
    for (const auto item : wanted) {
      const auto& at = place[static_cast<size_t>(item)];
      require(at.rank >= 0, "route: no rank holds item ", item);
      if (at.rank != rank) continue;
      plan.rows.push_back(at.row);
      ++count;
    }
    plan.send.push_back(count);
  }
  const auto& mine = needed[static_cast<size_t>(rank)];
  plan.receive.assign(held.size(), 0);
  for (const auto item : mine) ++plan.receive[place[static_cast<size_t>(item)].rank];
  std::vector<int64_t> next(held.size(), 0);  // where the next row of each rank arrives
  std::partial_sum(plan.receive.begin(), plan.receive.end() - 1, next.begin() + 1);
  for (const auto item : mine)
    plan.arrival.push_back(next[place[static_cast<size_t>(item)].rank]++);
  return plan;
}

}  // namespace triptych

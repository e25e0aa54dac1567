#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace triptych {

/// The rank of every item so that the ranks' costs are as equal as a greedy choice makes them:
/// the dearest item first, each to the rank with the least so far (LPT, at most 4/3 of the best
/// possible). Ties go to the lower item and the lower rank, so every rank finds the same.
std::vector<int64_t> share_by_cost(std::span<const double> costs, int64_t ranks);

/// Consecutive ranges of items, one a rank, cut where the running cost passes the rank's share.
/// @return [ranks + 1] bounds from 0 to the number of items.
std::vector<int64_t> cut_by_cost(std::span<const double> costs, int64_t ranks);

/// The largest cost of a rank over the mean; 1 when there is none.
double imbalance(std::span<const double> costs, std::span<const int64_t> rank_of_item,
                 int64_t ranks);

/// How rows that lie on some ranks reach those that need them; see `route_rows`.
struct RoutePlan {
  std::vector<int64_t> rows;           ///< own rows to send, by destination
  std::vector<int64_t> send, receive;  ///< counts for and from each rank
  std::vector<int64_t> arrival;        ///< [needed here] place of each needed item in what arrives
};

/// @param held    items that each rank has as rows, in the order of its rows; every needed item is
///   on exactly one rank.
/// @param needed  items that each rank wants.
/// @param items   items are numbered from 0 to this.
RoutePlan plan_route(std::span<const std::vector<int64_t>> held,
                     std::span<const std::vector<int64_t>> needed, int64_t items, int64_t rank);

}  // namespace triptych

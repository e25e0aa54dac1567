#include "data/row_balance.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace triptych {

std::vector<int64_t> balance_rows(std::span<const double> costs, int64_t ranks,
                                  int64_t micro_batch) {
  const auto rows = static_cast<int64_t>(costs.size());
  require(ranks > 0 && micro_batch > 0 && rows % (ranks * micro_batch) == 0, "balance: ", rows,
          " rows for ", ranks, " ranks of micro-batches of ", micro_batch);
  std::vector<int64_t> dearest(costs.size());
  std::iota(dearest.begin(), dearest.end(), int64_t{0});
  std::stable_sort(dearest.begin(), dearest.end(), [&](int64_t a, int64_t b) {
    return costs[static_cast<size_t>(a)] > costs[static_cast<size_t>(b)];
  });
  const int64_t places = rows / ranks;  // of a rank
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  std::vector<int64_t> taken(static_cast<size_t>(ranks), 0), row_at(costs.size());
  for (const auto row : dearest) {
    size_t least = load.size();
    for (size_t rank = 0; rank < load.size(); ++rank) {
      if (taken[rank] < places && (least == load.size() || load[rank] < load[least])) least = rank;
    }
    const int64_t n = taken[least]++, m = n / micro_batch, i = n % micro_batch;
    load[least] += costs[static_cast<size_t>(row)];
    row_at[static_cast<size_t>((m * ranks + static_cast<int64_t>(least)) * micro_batch + i)] = row;
  }
  return row_at;
}

}  // namespace triptych

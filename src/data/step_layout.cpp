#include "data/step_layout.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "data/row_balance.h"

namespace triptych {
namespace {

/// Which row stands at each place of the step.
std::vector<size_t> order_rows(const LoaderLayout& layout, std::span<const PlannedRow> rows) {
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (!layout.cost || static_cast<int64_t>(rows.size()) < layout.global_batch) return order;
  std::vector<double> costs;
  for (const auto& row : rows) {
    costs.push_back(0);
    for (const auto& item : row.items) costs.back() += layout.cost(item.length);
  }
  const auto balanced = balance_rows(costs, layout.data_size, layout.micro_batch);
  std::copy(balanced.begin(), balanced.end(), order.begin());
  return order;
}

}  // namespace

void check(const LoaderLayout& layout) {
  require<UsageError>(layout.micro_batch > 0 && layout.data_size > 0 && layout.global_batch > 0 &&
                          layout.data_rank >= 0 && layout.data_rank < layout.data_size,
                      "train: global_batch ", layout.global_batch, ", micro_batch ",
                      layout.micro_batch, ", data rank ", layout.data_rank, " of ",
                      layout.data_size, " cannot be");
  const auto rows = layout.micro_batch * layout.data_size;
  require<UsageError>(layout.global_batch % rows == 0, "train: global_batch (", layout.global_batch,
                      ") must be a multiple of micro_batch (", layout.micro_batch,
                      ") x data-parallel ranks (", layout.data_size, ") = ", rows);
}

std::vector<RowPlace> lay_out(const LoaderLayout& layout, std::span<const PlannedRow> rows) {
  const int64_t size = layout.data_size, b = layout.micro_batch;
  const auto row_at = order_rows(layout, rows);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const auto num_micro = (num_rows + b * size - 1) / (b * size);
  std::vector<RowPlace> places;
  for (int64_t m = 0; m < num_micro; ++m) {
    for (int64_t i = 0; i < b; ++i) {
      const auto g = (m * size + layout.data_rank) * b + i;
      places.push_back({.micro_batch = m,
                        .in_micro_batch = i,
                        .row = row_at[static_cast<size_t>(std::min(g, num_rows - 1))],
                        .blank = g >= num_rows});
    }
  }
  return places;
}

}  // namespace triptych

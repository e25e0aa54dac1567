#pragma once

// Which kernels a rank's step calls with which shapes: what `plan --calibrate` measures.

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "plan/plan_data.h"
#include "train/run_options.h"

namespace triptych {

/// A matrix product [M, K] x [K, N] as it lies in memory.
struct ProductShape {
  int64_t M = 0, K = 0, N = 0;
  bool a_transposed = false, b_transposed = false;  ///< its columns are contiguous
  at::ScalarType dtype = at::kFloat;
  double flop() const { return 2.0 * static_cast<double>(M) * static_cast<double>(K * N); }
  friend auto operator<=>(const ProductShape&, const ProductShape&) = default;
};

/// A call of attention within segments: H query heads, G key/value heads of K.
struct AttentionShape {
  int64_t H = 1, G = 1, K = 1;
  bool causal = false, backward = false;
  std::vector<int64_t> queries, keys;  ///< bounds of the segments
  at::ScalarType dtype = at::kFloat;
  double flop() const;  ///< backward 2.5 times forward
  friend auto operator<=>(const AttentionShape&, const AttentionShape&) = default;
};

/// Calls by shape, of every micro-batch that a plan runs: their proportions tell what a step needs.
struct RecordedWork {
  std::map<ProductShape, int64_t> products;
  std::map<AttentionShape, int64_t> attention;
};

/// Runs the plan of a rank's fewest micro-batches, with data those of its first step, and notes its
/// products and its attention.
/// @param data  null: typical rows
/// @throws as plan_run
RecordedWork record_work(const RunOptions& options, int64_t processes, int64_t rank,
                         int64_t ranks_per_host, const PlanData* data = nullptr);

}  // namespace triptych

#pragma once

// What the exchanges with gradients have in common; internal to parallel/.

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "parallel/group.h"

namespace triptych {

using Counts = std::vector<int64_t>;

inline int64_t sum(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

/// A group outlives the graph; autograd keeps plain numbers.
inline int64_t as_number(Group* group) {
  return static_cast<int64_t>(reinterpret_cast<intptr_t>(group));
}
inline void keep_group(torch::autograd::AutogradContext* ctx, Group* group) {
  ctx->saved_data["group"] = as_number(group);
}
inline Group& group_of(torch::autograd::AutogradContext* ctx) {
  return *reinterpret_cast<Group*>(static_cast<intptr_t>(ctx->saved_data["group"].toInt()));
}

/// Weight gradients that backward has put off are computed meanwhile.
inline void finish(Pending exchange, Group& group) {
  group.compute_beside(exchange);
  exchange.wait();
}

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "parallel/group.h"

namespace triptych {

/// One hop of a ring: every rank sends a block to the next one and gets that of the one before.
/// All ranks of the group must make the same hops in the same order.
class RingHop {
 public:
  RingHop() = default;
  /// Starts the hop. @param block  contiguous; alive until `wait`.
  /// @param shape  of the block that comes.
  RingHop(const at::Tensor& block, const std::vector<int64_t>& shape, Group& ring,
          std::string_view tag);
  /// The block that came. What the ring was given to compute beside it is computed first.
  at::Tensor wait();

 private:
  Group* ring_ = nullptr;
  at::Tensor arriving_;
  Pending pending_;
};

}  // namespace triptych

#include "parallel/ring_exchange.h"

#include <ATen/ops/empty.h>

namespace triptych {

// As an all-to-all in which only neighbours have something to say: no order of send and receive to
// get wrong, on Gloo and on NCCL alike.
RingHop::RingHop(const at::Tensor& block, const std::vector<int64_t>& shape, Group& ring,
                 std::string_view tag)
    : ring_(&ring), arriving_(at::empty(shape, block.options())) {
  const auto size = static_cast<size_t>(ring.size()), me = static_cast<size_t>(ring.rank());
  std::vector<int64_t> send(size, 0), receive(size, 0);
  send[(me + 1) % size] = block.numel();
  receive[(me + size - 1) % size] = arriving_.numel();
  pending_ = ring.all_to_all_async(arriving_.view(-1), block.view(-1), receive, send, tag);
}

at::Tensor RingHop::wait() {
  if (ring_ != nullptr) ring_->compute_beside(pending_);
  pending_.wait();
  return arriving_;
}

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace triptych {

/// Weight gradients that can wait: a zero-bubble schedule runs them where a rank would be idle.
///
/// A layer whose parameter points here (`Parameter::weight_gradients`) gives its backward's weight
/// product to `put_off` and hands no gradient to autograd; what the product needs stays alive until
/// it has run. While none is collected, `put_off` refuses and the layer computes at once.
/// One thread at a time; autograd's thread of a device while the caller waits for it counts as one.
class WeightGradients {
 public:
  /// The put-off products of one backward, in its order.
  using Work = std::vector<std::function<void()>>;

  /// From now on products go to `work`; null: they are computed at once.
  void collect_into(Work* work) { work_ = work; }
  /// @return false: compute it now.
  bool put_off(std::function<void()> product) {
    if (work_ == nullptr) return false;
    work_->push_back(std::move(product));
    return true;
  }

 private:
  Work* work_ = nullptr;
};

/// Adds to `parameter.grad()` exactly as a backward would, hooks included.
void accumulate_gradient(const at::Tensor& parameter, const at::Tensor& gradient);

}  // namespace triptych

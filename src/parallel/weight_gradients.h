#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

namespace triptych {

/// Weight gradients that can wait: a zero-bubble schedule runs them where a rank would be idle, and
/// tensor and context parallelism while an exchange of backward is under way.
///
/// A layer whose parameter points here (`Parameter::weight_gradients`) gives its backward's weight
/// product to `put_off` and hands no gradient to autograd; what the product needs stays alive until
/// it has run. While nobody wants them, `put_off` refuses and the layer computes at once.
/// One thread at a time; autograd's thread of a device while the caller waits for it counts as one.
class WeightGradients {
 public:
  using Product = std::function<void()>;
  /// The put-off products of one backward, in its order.
  using Work = std::vector<Product>;

  /// From now on products go to `work`; null: they are computed at once.
  void collect_into(Work* work) { work_ = work; }

  /// From now on up to `most` products wait for the next exchange (Group::compute_beside); one
  /// more, and the oldest is computed. Whoever reads the gradients calls `run_waiting` first.
  void keep_for_exchanges(size_t most) { most_waiting_ = most; }
  size_t waiting() const { return waiting_.size(); }
  /// The oldest that waits; there must be one.
  void run_oldest();
  void run_waiting();
  /// Forgets what waits: the step it belongs to was broken off.
  void drop_waiting() { waiting_.clear(); }

  /// @return false: compute it now.
  bool put_off(Product product);

 private:
  Work* work_ = nullptr;
  size_t most_waiting_ = 0;
  std::deque<Product> waiting_;
};

/// Adds to `parameter.grad()` exactly as a backward would, the hook behind it included. Where there
/// is none yet, `gradient` becomes it.
void accumulate_gradient(const at::Tensor& parameter, at::Tensor gradient);

}  // namespace triptych

#pragma once

// What autograd keeps for backward, seen and exchanged tensor by tensor.

#include <ATen/core/Tensor.h>

#include <memory>

namespace triptych {

/// One tensor that autograd saved, in whatever form it waits for backward.
class PackedTensor {
 public:
  virtual ~PackedTensor() = default;
  /// The same values with the same sizes and strides. May be called more than once, on any thread.
  virtual at::Tensor unpack() = 0;
};

/// Decides in which form saved tensors wait.
class SavedTensorPolicy {
 public:
  virtual ~SavedTensorPolicy() = default;
  /// @param tensor  as autograd saves it; it may belong to the graph, so what is kept of it must be
  ///   detached (or a leaf).
  virtual std::unique_ptr<PackedTensor> pack(const at::Tensor& tensor) = 0;
};

/// Whether policies are asked at all. libtorch has no public way to see all saved tensors from C++,
/// so this takes the way of its Python bindings: a subclass of the autograd engine, put in place by
/// the first call after a self-test (every saved tensor is seen once and comes back, gradients are
/// the same bits). Where the test fails (another release of libtorch, a Python interpreter in the
/// process), the engine stays as it was: policies are then never asked, everything is kept, and a
/// warning says so once. No backward may be running during the first call.
bool saved_tensors_are_seen();

/// While it lives, what this thread saves goes through `policy`; null: it is kept as usual. Scopes
/// nest, the innermost counts.
class SavedTensorScope {
 public:
  explicit SavedTensorScope(SavedTensorPolicy* policy);
  ~SavedTensorScope();
  SavedTensorScope(const SavedTensorScope&) = delete;
  SavedTensorScope& operator=(const SavedTensorScope&) = delete;

 private:
  SavedTensorPolicy* before_;
};

}  // namespace triptych

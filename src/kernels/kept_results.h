#pragma once

// Results that are dear to compute, handed from the first run of a piece of a model to the run in
// backward that repeats it.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace triptych {

/// What one run keeps for its repetition: attention's output with its log-sum-exp. Everything else
/// is computed again, attention is not.
class KeptResults {
 public:
  using Pair = std::pair<at::Tensor, at::Tensor>;

  KeptResults() = default;
  /// Of what another one released.
  explicit KeptResults(std::span<const at::Tensor> released);
  /// Hands all of it over, e.g. to autograd until backward.
  std::vector<at::Tensor> release();

  /// While it lives, attention on this thread adds to `results` (or, `repeat`, takes from it, in
  /// the same order). Null: attention computes. Scopes nest.
  class Scope {
   public:
    Scope(KeptResults* results, bool repeat);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    KeptResults* before_;
    bool repeated_before_;
  };

 private:
  friend KeptResults::Pair kept_or_computed(const auto& compute);
  /// Null where this thread keeps nothing.
  static KeptResults* current();
  static bool repeating();
  Pair take();

  std::vector<Pair> pairs_;
  size_t next_ = 0;  ///< of a repetition
};

/// The kernels' side: `compute()`, or what the first run found.
KeptResults::Pair kept_or_computed(const auto& compute) {
  auto* const results = KeptResults::current();
  if (results == nullptr) return compute();
  if (KeptResults::repeating()) return results->take();
  results->pairs_.push_back(compute());
  return results->pairs_.back();
}

}  // namespace triptych

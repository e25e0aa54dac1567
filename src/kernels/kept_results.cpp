#include "kernels/kept_results.h"

#include <utility>

#include "base/error.h"

namespace triptych {

namespace {
thread_local KeptResults* kept = nullptr;
thread_local bool repeat = false;
}  // namespace

KeptResults::Scope::Scope(KeptResults* results, bool repeat_now)
    : before_(std::exchange(kept, results)), repeated_before_(std::exchange(repeat, repeat_now)) {
  if (results != nullptr) results->next_ = 0;
}

KeptResults::Scope::~Scope() {
  kept = before_;
  repeat = repeated_before_;
}

KeptResults::KeptResults(std::span<const at::Tensor> released) {
  for (size_t i = 0; i + 1 < released.size(); i += 2)
    pairs_.emplace_back(released[i], released[i + 1]);
}

std::vector<at::Tensor> KeptResults::release() {
  std::vector<at::Tensor> all;
  for (auto& [out, lse] : std::exchange(pairs_, {})) {
    all.push_back(std::move(out));
    all.push_back(std::move(lse));
  }
  return all;
}

KeptResults* KeptResults::current() { return kept; }
bool KeptResults::repeating() { return repeat; }

KeptResults::Pair KeptResults::take() {
  require(next_ < pairs_.size(),
          "recompute: attention runs more often in backward than in forward (", pairs_.size(),
          " times); this is a bug");
  return std::exchange(pairs_[next_++], Pair());  // freed as soon as its graph is
}

}  // namespace triptych

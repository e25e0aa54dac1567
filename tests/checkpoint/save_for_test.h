#pragma once

#include <ATen/ATen.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_writer.h"

namespace triptych {

/// A model of two weights whose every element says which step saved it, on one rank.
struct SmallModel {
  at::Tensor a = at::zeros({40, 30}), b = at::zeros({500});

  explicit SmallModel(double value = 0) { fill(value); }
  void fill(double value) {
    a.fill_(value);
    b.fill_(value + 0.5);
  }
  const at::Tensor& named(const std::string& name) const { return name == "a" ? a : b; }

  WeightsToSave weights() const {
    return {.layout = make_layout(
                {{"a", at::kFloat, a.sizes().vec()}, {"b", at::kFloat, b.sizes().vec()}}),
            .provider = [this](const std::string& name) { return named(name).detach(); },
            .files = {{.name = "config.json", .content = "{}"}}};
  }
  /// Range [i / n, (i + 1) / n) of every state.
  std::vector<OptimizerPiece> pieces(int64_t i = 0, int64_t n = 1) const {
    std::vector<OptimizerPiece> pieces;
    for (const std::string name : {"a", "b"}) {
      const auto flat = named(name).view({-1});
      const int64_t begin = flat.numel() * i / n, end = flat.numel() * (i + 1) / n;
      for (const char* kind : {"master", "exp_avg", "exp_avg_sq"}) {
        pieces.push_back({name, kind, named(name).sizes().vec(), begin, end,
                          [=] { return flat.narrow(0, begin, end - begin); }});
      }
    }
    return pieces;
  }
};

/// `Agree` between threads that stand for ranks.
class ThreadAgreement {
 public:
  explicit ThreadAgreement(int world) : world_(world) {}
  bool operator()(bool ok) {
    std::unique_lock lock(mutex_);
    ok_ = ok_ && ok;
    const int64_t round = round_;
    if (++arrived_ == world_) {
      result_ = ok_;
      ok_ = true, arrived_ = 0, ++round_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return round_ != round; });
    }
    return result_;
  }

 private:
  int world_, arrived_ = 0;
  int64_t round_ = 0;
  bool ok_ = true, result_ = true;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace triptych

#include "plan/measure_kernels.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/clock.h"
#include "kernels/varlen_attention.h"
#include "train/matrix_peak.h"

namespace triptych {

namespace {

/// Best of at most five runs behind a first one, fewer where they take long.
double seconds_of(at::Device device, double limit_s, const std::function<void()>& run) {
  double best = 1e30;
  const double begin = steady_seconds();
  for (int i = 0; i < 6; ++i) {
    const double start = steady_seconds();
    run();
    synchronize(device);
    const double end = steady_seconds();
    if (i > 0 || end - begin > limit_s) best = std::min(best, end - start);  // the first warms up
    if (end - begin > limit_s) break;
  }
  return best;
}

at::Tensor matrix(int64_t rows, int64_t columns, bool transposed, at::TensorOptions options) {
  return transposed ? at::randn({columns, rows}, options).t() : at::randn({rows, columns}, options);
}

double seconds_of(const ProductShape& s, at::Device device, double limit_s) {
  const auto options = at::TensorOptions(s.dtype).device(device);
  const auto a = matrix(s.M, s.K, s.a_transposed, options);
  const auto b = matrix(s.K, s.N, s.b_transposed, options);
  return seconds_of(device, limit_s, [&] { at::mm(a, b); });
}

double seconds_of(const AttentionShape& s, at::Device device, double limit_s) {
  const auto options = at::TensorOptions(s.dtype).device(device);
  const auto q = at::randn({s.queries.back(), s.H, s.K}, options);
  const auto k = at::randn({s.keys.back(), s.G, s.K}, options), v = at::randn_like(k);
  const auto queries = at::tensor(s.queries, at::kLong), keys = at::tensor(s.keys, at::kLong);
  const AttentionOptions how{.causal = s.causal};
  if (!s.backward)
    return seconds_of(device, limit_s, [&] { attention_block(q, k, v, queries, keys, how); });
  const auto made = attention_block(q, k, v, queries, keys, how);
  return seconds_of(device, limit_s, [&] {
    attention_block_backward(made.out, q, k, v, made.out, made.lse, queries, keys, how);
  });
}

/// Flop/s over the shapes that most flop go into, nine tenths of them or what the budget allows.
template <class Shape>
double rate_of(const std::vector<std::pair<Shape, int64_t>>& calls, at::Device device,
               double budget_s) {
  std::vector<std::pair<double, const Shape*>> by_flop;
  double all = 0;
  for (const auto& [shape, count] : calls) {
    by_flop.emplace_back(shape.flop() * static_cast<double>(count), &shape);
    all += by_flop.back().first;
  }
  std::ranges::stable_sort(by_flop, std::ranges::greater(), [](const auto& x) { return x.first; });
  const double begin = steady_seconds();
  double flop = 0, seconds = 0;
  for (const auto& [of_calls, shape] : by_flop) {
    if (flop > 0.9 * all || steady_seconds() - begin > budget_s) break;
    seconds += of_calls / shape->flop() * seconds_of(*shape, device, budget_s / 6);
    flop += of_calls;
  }
  return seconds > 0 ? flop / seconds : 0;
}

}  // namespace

KernelRates measure_kernels(const RecordedWork& work, at::Device device, double budget_s) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<ProductShape, int64_t>> products(work.products.begin(),
                                                         work.products.end());
  std::vector<std::pair<AttentionShape, int64_t>> forward, backward;
  for (const auto& call : work.attention)
    (call.first.backward ? backward : forward).push_back(call);
  return {.products = rate_of(products, device, budget_s),
          .attention_forward = rate_of(forward, device, budget_s / 2),
          .attention_backward = rate_of(backward, device, budget_s / 2)};
}

double measure_launch(at::Device device) {
  const at::NoGradGuard no_grad;
  const auto x = at::ones({16}, at::TensorOptions(at::kFloat).device(device));
  constexpr int kCalls = 2000;
  return seconds_of(device, 1,
                    [&] {
                      for (int i = 0; i < kCalls; ++i) at::add(x, x);
                    }) /
         kCalls;
}

}  // namespace triptych

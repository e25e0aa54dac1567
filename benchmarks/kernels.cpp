// The fused operators beside what this machine can do at most. Read `of_peak` (share of the best
// bf16 matrix product) or `of_copy` (share of the best copy, counting the bytes that must move),
// not the time. Shapes are those of benchmarks/reference/baseline_qwen2_5_vl.py. Rates are per
// second of CPU time over all threads, so other programs on the machine disturb them little.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <optional>

#include "kernels/adamw.h"
#include "kernels/cpu_allocator.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/memory_ledger.h"
#include "kernels/memory_scope.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"

namespace triptych {
namespace {

double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <class Body>
double best_seconds(int repeat, Body&& body) {
  double best = 1e30;
  for (int i = 0; i < repeat; ++i) {
    const double start = cpu_seconds();
    body();
    best = std::min(best, cpu_seconds() - start);
  }
  return best;
}

/// Flop per second of CPU time of the library's best product, 2048^3 in bf16.
double peak_flops() {
  static const double peak = [] {
    const auto a = at::randn({2048, 2048}).to(at::kBFloat16), b = at::randn_like(a);
    return 2.0 * 2048 * 2048 * 2048 / best_seconds(6, [&] { at::mm(a, b); });
  }();
  return peak;
}

/// Bytes read and written per second of CPU time by a copy of 256 MiB.
double peak_copy() {
  static const double peak = [] {
    const auto from = at::ones({64 << 20});
    auto to = at::empty_like(from);
    return 2.0 * static_cast<double>(from.nbytes()) / best_seconds(6, [&] { to.copy_(from); });
  }();
  return peak;
}

at::Tensor randn(at::IntArrayRef sizes) { return at::randn(sizes).to(at::kBFloat16); }
at::Tensor leaf(at::IntArrayRef sizes) { return randn(sizes).set_requires_grad(true); }

template <class Body>
void measure(benchmark::State& state, const char* name, double work, Body&& body) {
  body();
  double best = 1e30;
  for (auto _ : state) best = std::min(best, best_seconds(1, body));
  state.counters[name] = work;
  state.counters["cpu_ms"] = best * 1e3;
}
template <class Body>
void of_peak(benchmark::State& state, double flop, Body&& body) {
  measure(state, "of_peak", 0, body);
  state.counters["of_peak"] = flop / (state.counters["cpu_ms"] * 1e-3) / peak_flops();
}
template <class Body>
void of_copy(benchmark::State& state, double bytes, Body&& body) {
  measure(state, "of_copy", 0, body);
  state.counters["of_copy"] = bytes / (state.counters["cpu_ms"] * 1e-3) / peak_copy();
}

void head_and_loss(benchmark::State& state) {
  const int64_t N = state.range(0), D = 1024, V = 151936;
  const auto h = leaf({N, D}), weight = leaf({V, D});
  const auto labels = at::randint(V, {N});
  of_peak(state, 6.0 * N * D * V, [&] { linear_cross_entropy(h, weight, labels); });
}
BENCHMARK(head_and_loss)->Arg(113)->Arg(452)->UseRealTime();

struct Attention {
  at::Tensor q, k, v, bounds;
  double flop = 0;
  Attention(int64_t T, int64_t length, int64_t H, int64_t G, int64_t K, bool causal)
      : q(leaf({T, H, K})), k(leaf({T, G, K})), v(leaf({T, G, K})) {
    std::vector<int64_t> at{0};
    for (int64_t t = 0; t < T; t += length) {
      const int64_t n = std::min(length, T - t);
      at.push_back(t + n);
      flop += 4.0 * H * K * n * n * (causal ? 0.5 : 1);
    }
    bounds = at::tensor(at, at::kLong);
  }
};

void attention_forward(benchmark::State& state) {
  const bool causal = state.range(4) != 0;
  const Attention a(state.range(0), state.range(1), state.range(2), state.range(3),
                    causal ? 128 : 80, causal);
  const at::NoGradGuard no_grad;
  of_peak(state, a.flop, [&] { varlen_attention(a.q, a.k, a.v, a.bounds, {.causal = causal}); });
}
void attention_backward(benchmark::State& state) {
  const bool causal = state.range(4) != 0;
  const Attention a(state.range(0), state.range(1), state.range(2), state.range(3),
                    causal ? 128 : 80, causal);
  const auto y = varlen_attention(a.q, a.k, a.v, a.bounds, {.causal = causal});
  const auto dy = at::randn_like(y);
  of_peak(state, 2.5 * a.flop,
          [&] { torch::autograd::grad({y}, {a.q, a.k, a.v}, {dy}, /*retain_graph=*/true); });
}
#define ATTENTION_SHAPES            \
  ->Args({1296, 1296, 16, 16, 0})   \
      ->Args({1296, 64, 16, 16, 0}) \
      ->Args({560, 560, 8, 2, 1})   \
      ->Args({2240, 560, 8, 2, 1})
BENCHMARK(attention_forward) ATTENTION_SHAPES->UseRealTime();
BENCHMARK(attention_backward) ATTENTION_SHAPES->UseRealTime();

void rms_norm_both(benchmark::State& state) {
  const int64_t T = state.range(0), D = state.range(1);
  const auto x = leaf({T, D}), weight = leaf({D}), dy = randn({T, D});
  of_copy(state, 5.0 * 2 * T * D,
          [&] { torch::autograd::grad({rms_norm(x, weight, 1e-6)}, {x, weight}, {dy}); });
}
BENCHMARK(rms_norm_both)->Args({560, 1024})->Args({2240, 2048})->UseRealTime();

void swiglu_both(benchmark::State& state) {
  const int64_t T = state.range(0), I = state.range(1);
  const auto gate = leaf({T, I}), up = leaf({T, I}), dy = randn({T, I});
  of_copy(state, 8.0 * 2 * T * I,
          [&] { torch::autograd::grad({swiglu(gate, up)}, {gate, up}, {dy}); });
}
BENCHMARK(swiglu_both)->Args({560, 4096})->Args({2240, 11008})->UseRealTime();

void rotary_forward(benchmark::State& state) {
  const int64_t T = state.range(0), H = 16, K = 80;
  auto qkv = randn({T, 3, H, K});
  const auto cos = at::rand({T, K}), sin = at::rand({T, K});
  const at::NoGradGuard no_grad;
  of_copy(state, 4.0 * 2 * T * H * K, [&] { split_rotary(qkv, cos, sin); });
}
BENCHMARK(rotary_forward)->Arg(1296)->UseRealTime();

void adamw_step(benchmark::State& state) {
  const int64_t n = state.range(0);
  const auto [weight, low] = split_master(at::randn({n}));
  const AdamWTensor tensor{.weight = weight,
                           .grad = randn({n}),
                           .exp_avg = at::zeros({n}),
                           .exp_avg_sq = at::zeros({n}),
                           .low = low,
                           .weight_decay = 0.01};
  AdamWStep step;
  of_copy(state, 26.0 * n, [&] {
    adamw({&tensor, 1}, step);
    ++step.step;
  });
}
BENCHMARK(adamw_step)->Arg(50'000'000)->UseRealTime();

void gradient_norm(benchmark::State& state) {
  const auto x = randn({state.range(0)});
  of_copy(state, 2.0 * state.range(0), [&] { sum_of_squares({&x, 1}); });
}
BENCHMARK(gradient_norm)->Arg(50'000'000)->UseRealTime();

// The products of the step as the library does them: y = x W^T, dx = dy W, dW = dy^T x.
void library_products(benchmark::State& state) {
  const int64_t T = state.range(0), in = state.range(1), out = state.range(2);
  const auto x = randn({T, in}), weight = randn({out, in}), dy = randn({T, out});
  of_peak(state, 6.0 * T * in * out, [&] {
    at::mm(x, weight.t());
    at::mm(dy, weight);
    at::mm(dy.t(), x);
  });
}
BENCHMARK(library_products)
    ->Args({560, 1024, 4096})
    ->Args({560, 4096, 1024})
    ->Args({1296, 1280, 3420})
    ->Args({113, 1024, 151936})
    ->UseRealTime();

/// One tensor's storage, taken and given back: 0 by libtorch's own allocator, 1 with the books of
/// tensor memory, 2 while a snapshot is recorded, 3 with the books inside the scope of a layer.
void allocate(benchmark::State& state) {
  auto* allocator = state.range(0) == 0 ? c10::GetDefaultCPUAllocator() : c10::GetCPUAllocator();
  std::optional<MemoryScope> layer;
  if (state.range(0) == 2) start_memory_recording(1 << 20);
  if (state.range(0) == 3) layer.emplace(MemoryPhase::kForward, "model.layers.0");
  for (auto _ : state) benchmark::DoNotOptimize(allocator->allocate(4096));
  if (state.range(0) == 2) stop_memory_recording();
}
BENCHMARK(allocate)->DenseRange(0, 3);

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  const char* threads = std::getenv("THREADS");
  at::set_num_threads(threads != nullptr ? std::atoi(threads) : 2);
  triptych::install_cpu_allocator();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

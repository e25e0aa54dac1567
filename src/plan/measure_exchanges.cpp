#include "plan/measure_exchanges.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "base/clock.h"
#include "parallel/collective_log.h"
#include "train/matrix_peak.h"

namespace triptych {

namespace {

/// What a call takes between products, as between the layers of a step: the mean of 15 without the
/// longest three, which others on the machine may have disturbed. Members do not begin together:
/// waking up what sends, and waiting for who is late, is part of an exchange in a step as well.
/// Begun from a barrier, one call after another, it takes a third to a half of that on a CPU.
double seconds_of(Group& group, at::Device device, at::ScalarType dtype,
                  const std::function<void()>& call) {
  constexpr int kCalls = 15, kDisturbed = 3;
  const int64_t side = device.is_cpu() ? 768 : 4096;  // some milliseconds
  const auto a = at::ones({side, side}, at::TensorOptions(dtype).device(device));
  std::array<double, kCalls> seconds{};
  group.barrier("calibration");
  for (int i = -2; i < kCalls; ++i) {
    at::mm(a, a);
    synchronize(device);
    const double begin = steady_seconds();
    call();
    synchronize(device);
    if (i >= 0) seconds[static_cast<size_t>(i)] = steady_seconds() - begin;
  }
  std::ranges::sort(seconds);
  return std::accumulate(seconds.begin(), seconds.end() - kDisturbed, 0.0) / (kCalls - kDisturbed);
}

}  // namespace

ExchangeRate fit_rate(const std::vector<std::pair<double, double>>& points) {
  // Least squares of 1 - (latency + bytes x cost) / seconds.
  double a = 0, b = 0, c = 0, p = 0, q = 0;
  for (const auto& [bytes, seconds] : points) {
    const double u = 1 / seconds, v = bytes / seconds;
    a += u * u;
    b += u * v;
    c += v * v;
    p += u;
    q += v;
  }
  double latency = (p * c - q * b) / (a * c - b * b);
  double cost = (a * q - b * p) / (a * c - b * b);
  if (latency < 0) {
    latency = 0;
    cost = q / c;
  } else if (cost <= 0) {  // longer messages took no longer: all of it is latency
    latency = p / a;
    cost = 1e-15;
  }
  return {.latency = latency, .bandwidth = 1 / cost};
}

std::map<std::string, ExchangeRate> measure_exchanges(Group& group, at::Device device,
                                                      at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t ranks = group.size();
  const int64_t unit = device.is_cpu() ? int64_t{1} << 16 : int64_t{1} << 20;
  std::map<std::string, std::vector<std::pair<double, double>>> points;
  for (const int64_t bytes : {unit, 16 * unit, 128 * unit}) {
    const int64_t part = bytes / 4 / ranks, elements = part * ranks;  // fp32
    const auto whole = at::zeros({elements}, at::TensorOptions(at::kFloat).device(device));
    const auto other = at::zeros_like(whole), own = whole.narrow(0, group.rank() * part, part);
    const auto note = [&](const std::string& operation, int64_t tensor_bytes,
                          const std::function<void()>& call) {
      const Traffic traffic{.ranks = ranks, .calls = 1, .bytes = tensor_bytes};
      points[operation].emplace_back(sent_bytes(operation, traffic),
                                     seconds_of(group, device, dtype, call));
    };
    const int64_t all = elements * 4;
    note("all_reduce", all, [&] { group.all_reduce(whole, ReduceOp::kSum, "calibration"); });
    note("all_gather", all, [&] { group.all_gather_into(other, own, "calibration"); });
    note("reduce_scatter", all, [&] {
      const auto to = other.narrow(0, 0, part);
      group.reduce_scatter_into(to, whole, "calibration");
    });
    const std::vector<int64_t> rows(static_cast<size_t>(ranks), part);
    note("all_to_all", all - part * 4,
         [&] { group.all_to_all(other, whole, rows, rows, "calibration"); });
  }
  std::map<std::string, ExchangeRate> rates;
  for (const auto& [operation, measured] : points) rates[operation] = fit_rate(measured);
  return rates;
}

}  // namespace triptych

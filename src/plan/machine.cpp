#include "plan/machine.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "parallel/process_context.h"
#include "train/matrix_peak.h"

namespace triptych {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

struct Known {
  Machine machine;  ///< peak_flop of bf16
  double fp32_flop = 0;
};

std::vector<Known> known() {
  return {
      {{.name = "a100",
        .peak_flop = 312 * kTera,
        .memory_bandwidth = 2.0 * kTera,
        .memory_bytes = int64_t{80} << 30,
        .host_bandwidth = 25 * kGiga,
        .link_bandwidth = 300 * kGiga,
        .network_bandwidth = 25 * kGiga},
       19.5 * kTera},
      {{.name = "a800",
        .peak_flop = 312 * kTera,
        .memory_bandwidth = 2.0 * kTera,
        .memory_bytes = int64_t{80} << 30,
        .host_bandwidth = 25 * kGiga,
        .link_bandwidth = 200 * kGiga,
        .network_bandwidth = 25 * kGiga},
       19.5 * kTera},
      {{.name = "h100",
        .peak_flop = 989 * kTera,
        .memory_bandwidth = 3.35 * kTera,
        .memory_bytes = int64_t{80} << 30,
        .host_bandwidth = 50 * kGiga,
        .link_bandwidth = 450 * kGiga,
        .network_bandwidth = 50 * kGiga},
       67 * kTera},
      {{.name = "h200",
        .peak_flop = 989 * kTera,
        .memory_bandwidth = 4.8 * kTera,
        .memory_bytes = int64_t{141'000'000'000},
        .host_bandwidth = 50 * kGiga,
        .link_bandwidth = 450 * kGiga,
        .network_bandwidth = 50 * kGiga},
       67 * kTera},
  };
}

/// Bytes/s between pinned memory of the host and the device.
double measure_host_bandwidth(at::Device device) {
  if (device.is_cpu()) return 0;
  const int64_t bytes = int64_t{256} << 20;
  const auto host = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  const auto there = at::empty({bytes}, at::TensorOptions(at::kByte).device(device));
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    synchronize(device);
    const double begin = steady_seconds();
    there.copy_(host, /*non_blocking=*/true);
    synchronize(device);
    if (i > 0) best = std::min(best, steady_seconds() - begin);
  }
  return static_cast<double>(bytes) / best;
}

}  // namespace

double measure_copy_bandwidth(at::Device device) {
  const int64_t bytes = int64_t{256} << 20;
  const auto options = at::TensorOptions(at::kByte).device(device);
  const auto from = at::zeros({bytes}, options), to = at::empty({bytes}, options);
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    synchronize(device);
    const double begin = steady_seconds();
    to.copy_(from);
    synchronize(device);
    if (i > 0) best = std::min(best, steady_seconds() - begin);
  }
  return 2 * static_cast<double>(bytes) / best;
}

std::vector<std::string> machine_names() {
  std::vector<std::string> names{"here"};
  for (const auto& k : known()) names.push_back(k.machine.name);
  return names;
}

Machine machine(std::string_view name, at::ScalarType dtype) {
  for (auto& k : known()) {
    if (k.machine.name != name) continue;
    if (dtype == at::kFloat) k.machine.peak_flop = k.fp32_flop;
    return k.machine;
  }
  std::string text;
  for (const auto& known_name : machine_names()) text += " " + known_name;
  fail<UsageError>("--machine ", name, " is not known; known:", text,
                   "; describe others with --peak, --bandwidth, --link and --network");
}

Machine measure_machine(at::Device device, at::ScalarType dtype) {
  if (!device.is_cpu()) require_device(device);
  const double copy = measure_copy_bandwidth(device);
  Machine m{.name = "here",
            .peak_flop = measure_matrix_peak(device, dtype),
            .memory_bandwidth = copy,
            .memory_bytes = device_memory_bytes(device),
            .host_bandwidth = measure_host_bandwidth(device),
            .devices_per_host = 1,
            .network_bandwidth = 1 * kGiga,
            .network_latency = 2e-4};
  if (device.is_cpu()) {
    m.matmul_efficiency = 0.8;
    m.link_bandwidth = copy / 6;  // over loopback every byte is copied three times
    m.link_latency = 1e-4;
    m.launch_s = 2e-6;
    m.launches_ahead = false;
  } else {
    m.link_bandwidth = m.host_bandwidth;  // at least; a faster link is found by --calibrate
  }
  return m;
}

Machine share_of(Machine whole, int64_t processes, int64_t threads, int64_t cores) {
  const double each = 1 / static_cast<double>(processes);
  whole.peak_flop *= std::min(each, static_cast<double>(threads) / static_cast<double>(cores));
  whole.memory_bandwidth *= each;
  whole.link_bandwidth *= each;
  whole.memory_bytes /= processes;
  whole.devices_per_host = processes;
  return whole;
}

}  // namespace triptych

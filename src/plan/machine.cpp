#include "plan/machine.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/suggest.h"
#include "train/matrix_peak.h"

namespace triptych {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;

std::vector<Machine> known() {
  return {
      {.name = "a100",
       .peak_flop = 312 * kTera,
       .memory_bandwidth = 2.0 * kTera,
       .memory_bytes = int64_t{80} << 30,
       .link_bandwidth = 300 * kGiga,
       .network_bandwidth = 25 * kGiga},
      {.name = "a800",
       .peak_flop = 312 * kTera,
       .memory_bandwidth = 2.0 * kTera,
       .memory_bytes = int64_t{80} << 30,
       .link_bandwidth = 200 * kGiga,
       .network_bandwidth = 25 * kGiga},
      {.name = "h100",
       .peak_flop = 989 * kTera,
       .memory_bandwidth = 3.35 * kTera,
       .memory_bytes = int64_t{80} << 30,
       .link_bandwidth = 450 * kGiga,
       .network_bandwidth = 50 * kGiga},
      {.name = "h200",
       .peak_flop = 989 * kTera,
       .memory_bandwidth = 4.8 * kTera,
       .memory_bytes = int64_t{141'000'000'000},
       .link_bandwidth = 450 * kGiga,
       .network_bandwidth = 50 * kGiga},
  };
}

/// Bytes read and written a second by copies far larger than the caches.
double measure_copy_bandwidth() {
  const int64_t bytes = int64_t{256} << 20;
  const auto from = at::zeros({bytes}, at::kByte), to = at::empty({bytes}, at::kByte);
  double best = 1e30;
  for (int i = 0; i < 4; ++i) {
    const double begin = steady_seconds();
    to.copy_(from);
    if (i > 0) best = std::min(best, steady_seconds() - begin);
  }
  return 2 * static_cast<double>(bytes) / best;
}

}  // namespace

std::vector<std::string> machine_names() {
  std::vector<std::string> names{"here"};
  for (const auto& m : known()) names.push_back(m.name);
  return names;
}

Machine machine(std::string_view name) {
  if (name == "here") return measure_machine();
  const auto all = known();
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const auto& m) { return m.name == name; });
  if (it != all.end()) return *it;
  std::string text;
  for (const auto& known_name : machine_names()) text += " " + known_name;
  fail<UsageError>("--machine ", name, " is not known; known:", text,
                   "; describe others with --peak, --bandwidth, --link and --network");
}

Machine measure_machine() {
  const double copy = measure_copy_bandwidth();
  return {.name = "here",
          .peak_flop = measure_matrix_peak(at::kCPU, at::kBFloat16),
          .efficiency = 0.8,
          .memory_bandwidth = copy,
          .memory_bytes = static_cast<int64_t>(total_memory_bytes()),
          .devices_per_host = std::max<int64_t>(1, std::thread::hardware_concurrency()),
          .link_bandwidth = copy / 6,  // over loopback every byte is copied three times
          .link_latency = 1e-4,
          .network_bandwidth = 1 * kGiga,
          .network_latency = 2e-4,
          .launch_s = 2e-6};
}

}  // namespace triptych

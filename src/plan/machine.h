#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// What the cost model must know of a machine. Rates are what one device reaches alone.
struct Machine {
  std::string name;
  double peak_flop = 0;         ///< dense bf16 matrix products, flop/s
  double efficiency = 0.6;      ///< of it that a training step's products reach
  double memory_bandwidth = 0;  ///< bytes/s
  double memory_efficiency = 0.8;
  int64_t memory_bytes = 0;  ///< of a device
  int64_t devices_per_host = 8;
  double link_bandwidth = 0;     ///< bytes/s that a device sends within its host
  double link_latency = 5e-6;    ///< s, of one message
  double network_bandwidth = 0;  ///< bytes/s that a device sends to other hosts
  double network_latency = 1.5e-5;
  double launch_s = 6e-6;  ///< of one kernel from eager code
};

std::vector<std::string> machine_names();
/// A known machine. Peaks are the makers' figures without sparsity.
/// @throws UsageError naming the known ones
Machine machine(std::string_view name);

/// This machine's CPU, as this process finds it now: product peak and copy bandwidth measured (half
/// a second), messages as over loopback.
Machine measure_machine();

}  // namespace triptych

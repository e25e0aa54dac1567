#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// Time of one collective as a line: `latency` s and what a rank sends / `bandwidth`.
struct ExchangeRate {
  double latency = 0;    ///< s a call
  double bandwidth = 0;  ///< bytes/s
  friend bool operator==(const ExchangeRate&, const ExchangeRate&) = default;
};

/// What the cost model must know of a machine. Rates are those of one device, or of the share of a
/// CPU that one process gets. The efficiencies are those that kernels commonly reach on GPUs of the
/// Hopper class in bf16 (docs/spec/parallelism.md, 11.4) where nothing was measured.
struct Machine {
  std::string name;
  double peak_flop = 0;  ///< dense matrix products in the run's precision, flop/s
  /// Of the peak: what matrix products and attention's two directions reach.
  double matmul_efficiency = 0.7;
  double attention_forward_efficiency = 0.55, attention_backward_efficiency = 0.45;
  double memory_bandwidth = 0;  ///< bytes/s
  double memory_efficiency = 0.8;
  int64_t memory_bytes = 0;   ///< of a device
  double host_bandwidth = 0;  ///< bytes/s between device and host, each way; 0: they are one
  int64_t devices_per_host = 8;
  double link_bandwidth = 0;     ///< bytes/s that a device sends within its host
  double link_latency = 5e-6;    ///< s, of one message
  double network_bandwidth = 0;  ///< bytes/s that a device sends to other hosts
  double network_latency = 1.5e-5;
  double launch_s = 6e-6;      ///< of one kernel from eager code
  bool launches_ahead = true;  ///< while kernels run; a CPU starts them in between
  double picture_s = 2.4e-3;   ///< of one loader's worker to decode, resize and cut a picture
  /// Measured collectives within a host, by operation; others go by the link.
  std::map<std::string, ExchangeRate> exchanges;
};

std::vector<std::string> machine_names();

/// A known machine. Peaks are the makers' figures without sparsity, for bf16 on the matrix units,
/// for fp32 outside of them (no TF32: the run computes in fp32).
/// @param dtype  kBFloat16 or kFloat
/// @throws UsageError naming the known ones; "here" is not among them (measure_machine)
Machine machine(std::string_view name, at::ScalarType dtype);

/// The whole of this machine as this process finds it now, without other ranks: product peak and
/// copy bandwidth measured (half a second), messages as over loopback.
/// @throws UsageError when there is no such device
Machine measure_machine(at::Device device, at::ScalarType dtype);

/// Bytes read and written a second by copies far larger than the caches.
double measure_copy_bandwidth(at::Device device);

/// What one of `processes` that run on a CPU at the same time gets of it.
/// @param threads, cores  of a process, and of the machine: products go by them
Machine share_of(Machine whole, int64_t processes, int64_t threads, int64_t cores);

}  // namespace triptych

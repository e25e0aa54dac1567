#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>

namespace triptych {

/// Waits until everything queued on the device is done; nothing to do on a CPU.
void synchronize(at::Device device);

/// Flop per second of a square matrix product on this device with this process's threads: the best
/// of a few, measured now (0.1 to 0.3 s on a CPU). `mfu` is a ratio to it.
double measure_matrix_peak(at::Device device, at::ScalarType dtype);

/// The most memory this process ever had: resident on a CPU, allocated on an accelerator; bytes.
int64_t peak_memory_bytes(at::Device device);

/// Of the device (the machine or container for a CPU); bytes, 0 where it does not say.
int64_t device_memory_bytes(at::Device device);

}  // namespace triptych

#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "kernels/memory_ledger.h"

namespace triptych {

/// Makes this device's tensors the ones that memory_totals, peaks, recordings and the message of a
/// failed allocation are about. On the CPU nothing has to be done; on CUDA libtorch's caching
/// allocator tells of every block. Other devices keep no books: only the host's are there.
/// Call once, before the model is made.
void follow_device_memory(c10::Device device);

/// The message (memory_report.h) of the device's last allocation that failed; empty: none did.
std::string device_memory_failure();

/// What the device's allocator has taken from the driver; empty on the CPU.
std::vector<MemorySegment> device_segments();

}  // namespace triptych

#pragma once

#include <cstdint>

namespace triptych {

/// Physical memory of this process now, and the most it ever had, in bytes; 0 where the system does
/// not say.
uint64_t resident_bytes();
uint64_t peak_resident_bytes();

/// Physical memory of this machine, or of the container (cgroup limit) when that is smaller.
uint64_t total_memory_bytes();

/// What a new process could still use without swapping.
uint64_t available_memory_bytes();

}  // namespace triptych

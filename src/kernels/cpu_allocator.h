#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace triptych {

/// Makes libtorch's CPU tensors come from an allocator that keeps freed pages for reuse, the large
/// ones from a heap of their own (page_heap.h).
///
/// glibc returns large blocks to the kernel when they are freed and takes new, zeroed pages for the
/// next one; a training step then spends a sixth to a third of its time on page faults. Call this
/// once, early in `main`, before threads and large tensors; later calls do nothing. Tensors made
/// earlier stay valid. Measurements: docs/decisions/0001-cpu-allocator.md.
/// An allocation that fails throws OutOfMemory (memory_report.h); so does one that would take
/// tensors above the bytes in the environment's TRIPTYCH_MEMORY_LIMIT.
/// @throws UsageError when that is no number.
void install_cpu_allocator();
inline constexpr const char* kMemoryLimitVariable = "TRIPTYCH_MEMORY_LIMIT";

/// Bytes in CPU tensors since install_cpu_allocator, as they were asked for; all zero without it.
/// What they are for: memory_ledger.h.
struct AllocatorStats {
  int64_t current_bytes = 0;   ///< in live tensors
  int64_t peak_bytes = 0;      ///< the most of it since the start or the last reset
  int64_t reserved_bytes = 0;  ///< taken from the system: live, kept for reuse, rounding
  int64_t allocations = 0;     ///< calls since the start
};
AllocatorStats cpu_allocator_stats();

/// Starts a new peak from what is in use now.
void reset_cpu_allocator_peak();

/// Gives kept pages that no tensor uses back to the system (after loading a checkpoint, say).
void trim_cpu_allocator();

/// A zero tensor on the CPU whose pages take no memory until they are written.
/// @param dtype any; contiguous. Always from the system, never from kept pages.
at::Tensor lazy_zeros(at::IntArrayRef sizes, at::ScalarType dtype);

}  // namespace triptych

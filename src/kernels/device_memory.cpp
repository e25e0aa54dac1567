#include "kernels/device_memory.h"

#include <atomic>
#include <mutex>

#include "kernels/memory_books.h"
#include "kernels/memory_report.h"

#ifdef TRIPTYCH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#endif

namespace triptych {
namespace {

std::mutex g_mutex;
std::string g_failure;
std::atomic<int> g_device{-1};

#ifdef TRIPTYCH_CUDA
namespace cuda = c10::cuda::CUDACachingAllocator;

/// Called under the allocator's lock: takes no other lock than those of the books, under which
/// nothing is allocated on the device.
void follow(const cuda::TraceEntry& entry) {
  if (entry.device_ != g_device) return;
  auto* data = reinterpret_cast<void*>(entry.addr_);
  if (entry.action_ == cuda::TraceEntry::ALLOC)
    books::enter_outside(data, entry.size_, MemorySpace::kDevice);
  if (entry.action_ == cuda::TraceEntry::FREE_COMPLETED)
    books::leave_outside(data, MemorySpace::kDevice);
}

void keep_failure(size_t asked, size_t total, size_t free) {
  const auto reason = "the device has " + memory_text(static_cast<int64_t>(free)) + " of " +
                      memory_text(static_cast<int64_t>(total)) + " left";
  const auto text = tell_out_of_memory(asked, reason);
  const std::lock_guard lock(g_mutex);
  g_failure = text;
}
#endif

}  // namespace

void follow_device_memory(c10::Device device) {
#ifdef TRIPTYCH_CUDA
  if (!device.is_cuda() || g_device.exchange(device.index()) >= 0) return;
  books::set_run_space(MemorySpace::kDevice);
  cuda::attachAllocatorTraceTracker(follow);
  cuda::attachOutOfMemoryObserver(
      [](int64_t, size_t asked, size_t total, size_t free) { keep_failure(asked, total, free); });
#else
  (void)device;
#endif
}

std::string device_memory_failure() {
  const std::lock_guard lock(g_mutex);
  return g_failure;
}

std::vector<MemorySegment> device_segments() {
  std::vector<MemorySegment> segments;
#ifdef TRIPTYCH_CUDA
  if (g_device < 0) return segments;
  for (const auto& from : cuda::snapshot().segments) {
    if (from.device != g_device) continue;
    MemorySegment segment{.address = from.address,
                          .bytes = static_cast<int64_t>(from.total_size),
                          .stream = reinterpret_cast<int64_t>(from.stream),
                          .large = from.is_large,
                          .blocks = {}};
    uint64_t address = from.address;
    for (const auto& block : from.blocks) {
      segment.blocks.push_back({.address = address,
                                .bytes = static_cast<int64_t>(block.size),
                                .requested = static_cast<int64_t>(block.requested_size),
                                .allocated = block.allocated,
                                .active = block.active});
      address += block.size;
    }
    segments.push_back(std::move(segment));
  }
#endif
  return segments;
}

}  // namespace triptych

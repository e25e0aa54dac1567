#include "kernels/cpu_allocator.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <atomic>

#include "base/error.h"

namespace triptych {
namespace {

std::atomic<int64_t> g_current{0}, g_peak{0}, g_count{0};
c10::Allocator* g_inner = nullptr;

void add_bytes(int64_t bytes) {
  const int64_t now = g_current.fetch_add(bytes) + bytes;
  int64_t peak = g_peak.load();
  while (now > peak && !g_peak.compare_exchange_weak(peak, now)) {
  }
}

/// libtorch's own allocator with its bytes counted.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    auto inner = g_inner->allocate(bytes);
    if (inner.get() == nullptr) return inner;
    add_bytes(static_cast<int64_t>(malloc_usable_size(inner.get())));
    ++g_count;
    void* data = inner.release_context();
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }

 private:
  static void release(void* data) {
    if (data == nullptr) return;
    g_current -= static_cast<int64_t>(malloc_usable_size(data));
    g_inner->raw_deleter()(data);
  }
};

}  // namespace

void install_cpu_allocator() {
  static CountingAllocator allocator;
  if (g_inner != nullptr) return;
  // Large blocks come from the heap, which keeps what is freed instead of giving it back.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 2147483647);
  mallopt(M_TOP_PAD, 64 << 20);
  g_inner = c10::GetAllocator(c10::DeviceType::CPU);
  c10::SetAllocator(c10::DeviceType::CPU, &allocator, /*priority=*/1);
}

AllocatorStats cpu_allocator_stats() {
  if (g_inner == nullptr) return {};
  const auto info = mallinfo2();
  return {.current_bytes = g_current,
          .peak_bytes = g_peak,
          .reserved_bytes = static_cast<int64_t>(info.arena + info.hblkhd),
          .allocations = g_count};
}

void reset_cpu_allocator_peak() { g_peak = g_current.load(); }

void trim_cpu_allocator() { malloc_trim(0); }

at::Tensor lazy_zeros(at::IntArrayRef sizes, at::ScalarType dtype) {
  const int64_t bytes =
      c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(dtype));
  if (bytes == 0) return at::from_blob(nullptr, sizes, at::TensorOptions().dtype(dtype));
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(data != MAP_FAILED, "out of memory: ", bytes, " bytes of zeros were asked for");
  return at::from_blob(
      data, sizes, [bytes](void* p) { munmap(p, bytes); }, at::TensorOptions().dtype(dtype));
}

}  // namespace triptych

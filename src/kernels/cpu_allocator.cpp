#include "kernels/cpu_allocator.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/error.h"
#include "base/format.h"
#include "kernels/memory_books.h"
#include "kernels/memory_ledger.h"
#include "kernels/page_heap.h"

namespace triptych {

using books::Block;

namespace {

bool g_installed = false;
int64_t g_limit = 0;  ///< of tensor memory, in bytes; 0: what the system gives

/// From so many bytes on, its Block included, a tensor comes from the heap, else from libtorch's
/// own allocation.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kLarge = SIZE_MAX;  // the sanitizer knows the bounds of malloc's blocks alone
#else
constexpr size_t kLarge = size_t{64} << 10;
#endif

PageHeap& heap() {
  static auto* all = new PageHeap;  // tensors of other threads may outlive the end of main
  return *all;
}

void keep_within_limit(size_t bytes) {
  if (g_limit == 0 || static_cast<int64_t>(bytes) <= g_limit - books::bytes_now()) return;
  books::refuse(bytes, fmt::format("{} = {}", kMemoryLimitVariable, g_limit).c_str());
}

/// To PyTorch's profiler, where one runs on this thread.
void report(void* data, int64_t bytes) {
  if (!c10::memoryProfilingEnabled()) return;
  const auto total = static_cast<size_t>(books::bytes_now());
  c10::reportMemoryUsageToProfiler(data, bytes, total, 0, c10::Device(c10::DeviceType::CPU));
}

/// Memory with a Block in front, which the ledger keeps its books in.
class LedgerAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, nullptr, &books::release_cpu_block, cpu};
    auto* block = new (take(bytes)) Block;
    void* data = block + 1;
    books::enter(*block, data, bytes);
    report(data, block->bytes);
    return {data, data, &books::release_cpu_block, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &books::release_cpu_block; }
  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }

 private:
  static void* take(size_t bytes) {
    // Beyond the address space: c10's own words for it.
    keep_within_limit(bytes);
    const size_t whole = bytes > PTRDIFF_MAX - sizeof(Block) ? bytes : bytes + sizeof(Block);
    if (whole >= kLarge && whole > bytes) {
      if (void* data = heap().take(whole)) return data;
      books::refuse(bytes, "the system gives no more");
    }
    try {
      return c10::alloc_cpu(whole);
    } catch (const c10::Error&) {
      if (whole == bytes) throw;
      books::refuse(bytes, "the system gives no more");
    }
  }
};

}  // namespace

void books::release_cpu_block(void* data) {
  if (data == nullptr) return;
  auto* block = static_cast<Block*>(data) - 1;
  const int64_t bytes = block->bytes;
  books::leave(*block);
  report(data, -bytes);
  const size_t whole = static_cast<size_t>(bytes) + sizeof(Block);
  if (whole >= kLarge) return heap().give_back(block, whole);
  c10::free_cpu(block);
}

void install_cpu_allocator() {
  static LedgerAllocator allocator;
  if (g_installed) return;
  // What is no tensor: large blocks come from glibc's heap, which keeps what is freed.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 2147483647);
  mallopt(M_TOP_PAD, 64 << 20);
  g_installed = true;
  if (const char* limit = std::getenv(kMemoryLimitVariable)) {
    g_limit = std::atoll(limit);
    require<UsageError>(g_limit > 0, kMemoryLimitVariable, " = \"", limit,
                        "\": write a number of bytes above 0");
  }
  c10::SetAllocator(c10::DeviceType::CPU, &allocator, /*priority=*/1);
}

AllocatorStats cpu_allocator_stats() {
  if (!g_installed) return {};
  const auto info = mallinfo2();
  return {
      .current_bytes = books::bytes_now(),
      .peak_bytes = books::bytes_at_peak(),
      .reserved_bytes = static_cast<int64_t>(info.arena + info.hblkhd) + heap().reserved_bytes(),
      .allocations = books::allocations()};
}

void reset_cpu_allocator_peak() { reset_memory_peak(); }

void trim_cpu_allocator() {
  malloc_trim(0);
  heap().trim();
}

at::Tensor lazy_zeros(at::IntArrayRef sizes, at::ScalarType dtype) {
  const int64_t bytes =
      c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(dtype));
  if (bytes == 0) return at::from_blob(nullptr, sizes, at::TensorOptions().dtype(dtype));
  keep_within_limit(static_cast<size_t>(bytes));
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) books::refuse(static_cast<size_t>(bytes), std::strerror(errno));
  books::enter_outside(data, static_cast<size_t>(bytes));
  return at::from_blob(
      data, sizes,
      [bytes](void* p) {
        books::leave_outside(p);
        munmap(p, bytes);
      },
      at::TensorOptions().dtype(dtype));
}

}  // namespace triptych

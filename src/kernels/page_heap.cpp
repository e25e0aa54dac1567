#include "kernels/page_heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>

namespace triptych {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kGrowth = size_t{32} << 20;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void* pages_from_system(uintptr_t wish, size_t bytes) {
  void* got = mmap(reinterpret_cast<void*>(wish), bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return got == MAP_FAILED ? nullptr : got;
}

}  // namespace

PageHeap::~PageHeap() {
  for (const auto& [begin, bytes] : segments_) munmap(reinterpret_cast<void*>(begin), bytes);
}

void* PageHeap::take(size_t bytes) {
  if (bytes > PTRDIFF_MAX) return nullptr;
  bytes = whole_pages(std::max<size_t>(bytes, 1));
  const std::lock_guard lock(mutex_);
  auto fit = by_size_.lower_bound({bytes, 0});
  if (fit == by_size_.end()) {
    if (!grow(bytes)) return nullptr;
    fit = by_size_.lower_bound({bytes, 0});
  }
  return cut(free_.find(fit->second), bytes);
}

void PageHeap::give_back(void* data, size_t bytes) {
  const std::lock_guard lock(mutex_);
  add(reinterpret_cast<Address>(data), whole_pages(std::max<size_t>(bytes, 1)));
}

void PageHeap::trim() {
  const std::lock_guard lock(mutex_);
  for (const auto& [begin, bytes] : free_)
    madvise(reinterpret_cast<void*>(begin), bytes, MADV_DONTNEED);
}

int64_t PageHeap::reserved_bytes() const {
  const std::lock_guard lock(mutex_);
  return reserved_;
}

void* PageHeap::cut(Free block, size_t bytes) {
  const auto [begin, size] = *block;
  remove(block);
  if (size > bytes) {
    free_.emplace(begin + bytes, size - bytes);
    by_size_.emplace(size - bytes, begin + bytes);
  }
  return reinterpret_cast<void*>(begin);
}

void PageHeap::add(Address begin, size_t bytes) {
  auto next = free_.lower_bound(begin);
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == begin) {
      begin = previous->first;
      bytes += previous->second;
      remove(previous);
    }
  }
  if (next != free_.end() && next->first == begin + bytes) {
    bytes += next->second;
    const auto behind = std::next(next);
    remove(next);
    next = behind;
  }
  by_size_.emplace(bytes, begin);
  free_.emplace_hint(next, begin, bytes);
}

void PageHeap::remove(Free block) {
  by_size_.erase({block->second, block->first});
  free_.erase(block);
}

bool PageHeap::grow(size_t bytes) {
  // Right below the lowest segment, where the kernel maps next by itself: what is free there joins.
  const Address lowest = segments_.empty() ? 0 : segments_.begin()->first;
  const auto first = free_.find(lowest);
  const size_t missing = bytes - (first == free_.end() ? 0 : first->second);
  const auto ask = [&](size_t at_least) -> bool {
    for (const size_t more : {std::max(at_least, kGrowth), at_least}) {
      void* got = pages_from_system(lowest < more ? 0 : lowest - more, more);
      if (got == nullptr) continue;
      const auto begin = reinterpret_cast<Address>(got);
      if (begin + more != lowest && more < bytes) {  // elsewhere it must do by itself
        munmap(got, more);
        return false;
      }
      segments_.emplace(begin, more);
      reserved_ += static_cast<int64_t>(more);
      add(begin, more);
      return true;
    }
    return false;
  };
  return ask(missing) || (missing < bytes && ask(bytes));
}

}  // namespace triptych

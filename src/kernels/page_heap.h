#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace triptych {

/// Keeps large blocks apart from all small ones, which would hold gaps between them open: the least
/// free block that is large enough is cut, freed neighbours are joined, and what was taken from the
/// system is kept. Threads take turns.
///
/// It gives nothing back but on `trim`, where free pages lose what they held and stay addresses.
class PageHeap {
 public:
  PageHeap() = default;
  ~PageHeap();
  PageHeap(const PageHeap&) = delete;
  PageHeap& operator=(const PageHeap&) = delete;

  /// @return aligned to a page, its contents undefined; null where the system gives no more
  void* take(size_t bytes);
  /// @param bytes  as it was taken
  void give_back(void* data, size_t bytes);
  void trim();

  /// Bytes of pages that are taken or kept for reuse.
  int64_t reserved_bytes() const;

 private:
  using Address = uintptr_t;
  using Free = std::map<Address, size_t>::iterator;

  void* cut(Free block, size_t bytes);
  void add(Address begin, size_t bytes);
  void remove(Free block);
  bool grow(size_t bytes);

  mutable std::mutex mutex_;
  std::map<Address, size_t> free_;                ///< bytes by address; no two touch
  std::set<std::pair<size_t, Address>> by_size_;  ///< the same
  std::map<Address, size_t> segments_;            ///< from the system
  int64_t reserved_ = 0;
};

}  // namespace triptych

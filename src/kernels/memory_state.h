#pragma once

// What the ledger holds. Only the files that implement it include this.

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/memory_books.h"
#include "kernels/memory_ledger.h"

namespace triptych::books {

/// Unix time.
int64_t now_ns();

/// A part of a block with a tag of its own.
struct Share {
  int64_t offset, bytes;
  MemoryTag tag;
};

struct Recording {
  int64_t begin_ns = 0, max_events = 0;
  int64_t next = 0;  ///< number of the next event
  StackOf stack_of = nullptr;
  std::vector<MemoryBlock> before;
  std::vector<MemoryEvent> events;  ///< a ring once there are max_events

  MemoryEvent* find(int64_t number) {
    const auto size = static_cast<int64_t>(events.size());
    if (number < 0 || number < next - size) return nullptr;
    return &events[static_cast<size_t>(max_events > 0 ? number % max_events : number)];
  }
  int64_t add(const MemoryEvent& event) {
    if (max_events > 0 && static_cast<int64_t>(events.size()) == max_events) {
      events[static_cast<size_t>(next % max_events)] = event;
    } else {
      events.push_back(event);
    }
    return next++;
  }
};

/// Of one space. All of it behind one lock: CPU tensors are made by one thread at a time nearly
/// always, and an uncontended lock is cheap beside malloc.
struct Books {
  std::mutex mutex;
  Block* first = nullptr;
  Block* last = nullptr;
  MemoryTotals now, peak, run_peak;
  bool rising = false;  ///< `peak.bytes` is that of `now`, its parts are not copied yet
  int64_t made = 0;     ///< blocks since the start
  std::unordered_map<const Block*, std::vector<Share>> shares;
  std::unordered_map<const void*, std::unique_ptr<Block>> outside;
  std::unique_ptr<Recording> recording;
  std::unique_ptr<char[]> reserve =
      std::make_unique_for_overwrite<char[]>(1 << 20);  ///< for the last message

  void count(MemoryTag tag, int64_t bytes) {
    now.by_kind[static_cast<size_t>(tag.kind)] += bytes;
    if (now.by_layer.size() <= tag.layer) now.by_layer.resize(tag.layer + size_t{1});
    now.by_layer[tag.layer][static_cast<size_t>(tag.kind)] += bytes;
  }
  /// Copies the parts of a peak before they change downwards: not at every allocation of a rise.
  void settle_peak() {
    if (rising) peak = now;
    rising = false;
  }
  void settle_run_peak() {
    settle_peak();
    if (peak.bytes > run_peak.bytes) run_peak = peak;
  }
  MemoryBlock describe(const Block& b) const {
    return {reinterpret_cast<uint64_t>(b.data), b.bytes, b.number, b.tag, b.thread};
  }
  std::vector<MemoryBlock> alive() const;
  void retag(Block& block, MemoryTag tag);
  void retag_part(Block& block, int64_t offset, int64_t bytes, MemoryTag tag);
  void remove(const Block& block);
  /// Live blocks from number `since` on of this scope that are temporary become activations.
  void keep(uint64_t scope, uint64_t since);
};

Books& books(MemorySpace space);
/// Of the space that the run computes in.
Books& run_books();

/// Threads that made or freed a block, by number; the first stands for none.
struct Threads {
  std::mutex mutex;
  std::vector<std::string> names{""};
  std::vector<int64_t> ids{0};  ///< the system's
};
Threads& threads();

}  // namespace triptych::books

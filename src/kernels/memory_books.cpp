#include "kernels/memory_books.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

#include "base/format.h"
#include "kernels/memory_scope.h"
#include "kernels/memory_state.h"

namespace triptych::books {
namespace {

/// Over both spaces, so that one number marks a moment in both.
std::atomic<uint64_t> g_next_block{1};
std::atomic<MemorySpace> g_run_space{MemorySpace::kHost};

uint16_t this_thread() {
  thread_local uint16_t number = 0;
  if (number > 0) return number;
  std::array<char, 32> name{};
  pthread_getname_np(pthread_self(), name.data(), name.size());
  auto& self = threads();
  const std::lock_guard lock(self.mutex);
  if (self.names.size() > UINT16_MAX) return 0;
  number = static_cast<uint16_t>(self.names.size());
  self.names.push_back(fmt::format("{} {}", name.data(), number));
  self.ids.push_back(::gettid());
  return number;
}

}  // namespace

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// Never destroyed: tensors may be freed after main.
Books& books(MemorySpace space) {
  static auto* instances = new std::array<Books, 2>;
  return (*instances)[static_cast<size_t>(space)];
}

Books& run_books() { return books(g_run_space); }

void set_run_space(MemorySpace space) { g_run_space = space; }

Threads& threads() {
  static auto* instance = new Threads;
  return *instance;
}

std::vector<MemoryBlock> Books::alive() const {
  std::vector<MemoryBlock> list;
  for (const Block* b = first; b != nullptr; b = b->next) {
    const auto parts = shares.find(b);
    int64_t at = 0;
    const auto push = [&](int64_t begin, int64_t end, MemoryTag tag) {
      if (begin == end) return;
      auto block = describe(*b);
      block.address += static_cast<uint64_t>(begin);
      block.bytes = end - begin;
      block.tag = tag;
      list.push_back(block);
    };
    if (parts != shares.end()) {
      for (const auto& share : parts->second) {
        push(at, share.offset, b->tag);
        push(share.offset, share.offset + share.bytes, share.tag);
        at = share.offset + share.bytes;
      }
    }
    push(at, b->bytes, b->tag);
  }
  return list;
}

void Books::retag(Block& block, MemoryTag tag) {
  if (block.shared) {
    for (const auto& share : shares[&block]) {
      count(share.tag, -share.bytes);
      count(block.tag, share.bytes);
    }
    shares.erase(&block);
    block.shared = false;
  }
  count(block.tag, -block.bytes);
  block.tag = tag;
  count(block.tag, block.bytes);
}

void Books::retag_part(Block& block, int64_t offset, int64_t bytes, MemoryTag tag) {
  auto& list = shares[&block];
  block.shared = true;
  // What it overlaps gives way: a buffer is cut anew, and never in parts of parts.
  std::erase_if(list, [&](const Share& old) {
    if (old.offset + old.bytes <= offset || offset + bytes <= old.offset) return false;
    count(old.tag, -old.bytes);
    count(block.tag, old.bytes);
    return true;
  });
  list.insert(std::ranges::upper_bound(list, offset, {}, &Share::offset), {offset, bytes, tag});
  count(block.tag, -bytes);
  count(tag, bytes);
}

void Books::remove(const Block& block) {
  int64_t rest = block.bytes;
  if (block.shared) {
    for (const auto& share : shares[&block]) {
      count(share.tag, -share.bytes);
      rest -= share.bytes;
    }
    shares.erase(&block);
  }
  count(block.tag, -rest);
  now.bytes -= block.bytes;
}

void enter(Block& block, void* data, size_t bytes, MemorySpace space) {
  const auto place = memory_place();
  auto& self = books(space);
  const std::lock_guard lock(self.mutex);
  block = {.previous = self.last,
           .next = nullptr,
           .data = data,
           .bytes = static_cast<int64_t>(bytes),
           .number = g_next_block++,
           .scope = place.scope,
           .tag = place.tag,
           .thread = this_thread(),
           .space = space,
           .shared = false,
           .event = -1};
  ++self.made;
  (self.last != nullptr ? self.last->next : self.first) = &block;
  self.last = &block;
  self.count(block.tag, block.bytes);
  self.now.bytes += block.bytes;
  if (self.now.bytes > self.peak.bytes) {
    self.peak.bytes = self.now.bytes;
    self.rising = true;
  }
  if (self.recording) {
    block.event = self.recording->add(
        {.time_ns = now_ns(),
         .address = reinterpret_cast<uint64_t>(data),
         .bytes = block.bytes,
         .block = block.number,
         .tag = block.tag,
         .thread = block.thread,
         .stack = self.recording->stack_of != nullptr ? self.recording->stack_of(block.bytes) : 0});
  }
}

void leave(Block& block) {
  auto& self = books(block.space);
  const std::lock_guard lock(self.mutex);
  self.settle_peak();
  (block.previous != nullptr ? block.previous->next : self.first) = block.next;
  (block.next != nullptr ? block.next->previous : self.last) = block.previous;
  if (self.recording) {
    if (auto* made = self.recording->find(block.event)) made->tag = block.tag;
    self.recording->add({.time_ns = now_ns(),
                         .address = reinterpret_cast<uint64_t>(block.data),
                         .bytes = -block.bytes,
                         .block = block.number,
                         .tag = block.tag,
                         .thread = this_thread(),
                         .stack = 0});
  }
  self.remove(block);
}

void enter_outside(void* data, size_t bytes, MemorySpace space) {
  auto block = std::make_unique<Block>();
  enter(*block, data, bytes, space);
  auto& self = books(space);
  const std::lock_guard lock(self.mutex);
  self.outside[data] = std::move(block);
}

void leave_outside(void* data, MemorySpace space) {
  auto& self = books(space);
  std::unique_ptr<Block> block;
  {
    const std::lock_guard lock(self.mutex);
    const auto it = self.outside.find(data);
    if (it == self.outside.end()) return;
    block = std::move(it->second);
    self.outside.erase(it);
  }
  leave(*block);
}

void keep_as_activations(uint64_t scope, uint64_t first) {
  books(MemorySpace::kHost).keep(scope, first);
  books(MemorySpace::kDevice).keep(scope, first);
}

void Books::keep(uint64_t scope, uint64_t since) {
  const std::lock_guard lock(mutex);
  for (Block* b = last; b != nullptr && b->number >= since; b = b->previous) {
    if (b->scope != scope || b->tag.kind != MemoryKind::kTemporary) continue;
    auto tag = b->tag;
    tag.kind = MemoryKind::kActivation;
    retag(*b, tag);
  }
}

uint64_t next_block() { return g_next_block; }

int64_t bytes_now() {
  auto& self = books(MemorySpace::kHost);
  const std::lock_guard lock(self.mutex);
  return self.now.bytes;
}
int64_t bytes_at_peak() {
  auto& self = books(MemorySpace::kHost);
  const std::lock_guard lock(self.mutex);
  return self.peak.bytes;
}
int64_t allocations() {
  auto& self = books(MemorySpace::kHost);
  const std::lock_guard lock(self.mutex);
  return self.made;
}

void give_up_reserve() {
  auto& self = books(MemorySpace::kHost);
  const std::lock_guard lock(self.mutex);
  self.reserve.reset();
}

}  // namespace triptych::books

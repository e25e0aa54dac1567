#pragma once

// The inside of the ledger: what allocators tell it. Others include memory_ledger.h.

#include <cstddef>
#include <cstdint>

#include "kernels/memory_kind.h"

namespace triptych::books {

/// Stands in front of the data of every tensor of the CPU allocator, so that a release finds what
/// was known at the allocation without a search. 64 bytes: the data keeps c10's alignment.
struct Block {
  Block *previous, *next;  ///< alive ones, in the order of their making
  void* data;
  int64_t bytes;
  uint64_t number;
  uint64_t scope;  ///< that it was made in
  MemoryTag tag;
  uint16_t thread;
  MemorySpace space;
  bool shared;    ///< parts of it have tags of their own
  int64_t event;  ///< number of its allocation in the recording; -1: none
};
static_assert(sizeof(Block) == 64);

/// Takes a block into the books, with the tag of this thread's place.
void enter(Block& block, void* data, size_t bytes, MemorySpace space = MemorySpace::kHost);
void leave(Block& block);
/// The same for memory without a Block in front of it; found again by its address.
void enter_outside(void* data, size_t bytes, MemorySpace space = MemorySpace::kHost);
/// What is not in the books is left alone.
void leave_outside(void* data, MemorySpace space = MemorySpace::kHost);

/// Blocks made since `first` in this scope and still temporary become activations.
void keep_as_activations(uint64_t scope, uint64_t first);
/// Number of the next block.
uint64_t next_block();

/// The books that memory_totals and recordings read; the host's until then.
void set_run_space(MemorySpace space);

// Of the host.
int64_t bytes_now();
int64_t bytes_at_peak();
int64_t allocations();

/// Lets go of what was kept so that the last message can still be made.
void give_up_reserve();

/// Throws OutOfMemory. @param reason  of the system's refusal; may be empty.
[[noreturn]] void refuse(size_t bytes, const char* reason);

/// Frees the data of a block from the CPU allocator; its address marks storages that are in the
/// books.
void release_cpu_block(void* data);

}  // namespace triptych::books

#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/memory_kind.h"

namespace triptych {

/// Bytes by what they are for.
using MemoryByKind = std::array<int64_t, kMemoryKinds>;

/// How much tensor memory this process holds, and of what; at one moment.
struct MemoryTotals {
  int64_t bytes = 0;  ///< asked for by tensors, without rounding
  MemoryByKind by_kind{};
  std::vector<MemoryByKind> by_layer{};  ///< by number from memory_layer(); 0: of no layer
};

/// Books of all CPU tensor memory: what install_cpu_allocator counts, and zeros of lazy_zeros.
/// Every function may be called from any thread; the books are exact at every moment.
MemoryTotals memory_totals();
/// The state when most was held: since reset_memory_peak(), and since the start.
MemoryTotals memory_peak();
MemoryTotals memory_peak_of_run();
void reset_memory_peak();

/// Says what a tensor's memory is for and, where a parameter's or layer's name is given, which
/// layer's. A view of a part of its storage takes only that part along. Tensors that are not in the
/// books (other devices, mapped files) are left alone.
void tag_memory(const at::Tensor& tensor, MemoryKind kind, std::string_view name = {});

// -------------------------------------------------------------------------------- for recordings

/// One allocation or release.
struct MemoryEvent {
  int64_t time_ns = 0;  ///< since 1970
  uint64_t address = 0;
  int64_t bytes = 0;   ///< negative: released
  uint64_t block = 0;  ///< number of the allocation, counted from the start of the process
  MemoryTag tag{};     ///< as known when the block was released, or the recording stopped
  uint16_t thread = 0;
  uint32_t stack = 0;  ///< what the recording's StackOf said of an allocation
};

/// A block that was alive when a recording began or ended.
struct MemoryBlock {
  uint64_t address = 0;
  int64_t bytes = 0;
  uint64_t block = 0;
  MemoryTag tag{};
  uint16_t thread = 0;
};

/// Memory that an allocator took from its device's driver, and how it is cut up.
struct MemorySegment {
  struct Part {
    uint64_t address = 0;
    int64_t bytes = 0, requested = 0;
    bool allocated = false, active = false;  ///< active alone: freed, but a stream may still use it
  };
  uint64_t address = 0;
  int64_t bytes = 0, stream = 0;
  bool large = true;
  std::vector<Part> blocks;
};

/// Everything between start_memory_recording and stop_memory_recording.
struct MemoryRecording {
  int64_t begin_ns = 0, end_ns = 0;
  std::vector<MemoryBlock> before, after;  ///< alive when it began, when it ended
  std::vector<MemoryEvent> events;
  int64_t dropped = 0;                  ///< oldest events beyond max_events
  std::vector<std::string> layers;      ///< names by number
  std::vector<std::string> threads;     ///< names by number
  std::vector<int64_t> thread_ids;      ///< the system's, by number
  std::vector<MemorySegment> segments;  ///< at the end; empty on the CPU
};

/// Who allocates just now, as a number; asked for every allocation of a recording, with the books
/// locked: it may make no tensor.
using StackOf = uint32_t (*)(int64_t bytes);

/// @param max_events  the newest so many are kept; 0: all.
void start_memory_recording(int64_t max_events = 0, StackOf stack_of = nullptr);
bool memory_recording();
MemoryRecording stop_memory_recording();
/// What a recording that began before the first block would be now, without events.
MemoryRecording memory_blocks();

}  // namespace triptych

#pragma once

// Memory of a program that runs on the meta device: tensors have sizes and lifetimes, but no
// values. What `triptych plan` measures.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/memory_kind.h"

namespace triptych {

/// What the bytes of a run's tensors are for: the kinds of docs/memory.md, fewer of them. Known
/// from the same scopes and tags as in a real run. Whatever is made in forward, backward and update
/// and belongs to nothing else counts as activations, temporary results included; buffers are a
/// micro-batch's input and the messages between pipeline stages.
enum class MetaMemoryKind : uint8_t { kParameters, kGradients, kOptimizer, kActivations, kBuffers };
inline constexpr size_t kMetaMemoryKinds = 5;
constexpr std::array<std::string_view, kMetaMemoryKinds> option_names(MetaMemoryKind) {
  return {"parameters", "gradients", "optimizer", "activations", "buffers"};
}

/// Bytes by kind.
struct MemoryUse {
  std::array<int64_t, kMetaMemoryKinds> bytes{};
  int64_t of(MetaMemoryKind kind) const { return bytes[static_cast<size_t>(kind)]; }
  int64_t total() const;
};

/// Which kernels the meta device stands for: their temporary results are counted as well.
enum class MetaKernels : uint8_t { kCpu, kFused };

/// Records every allocation on the meta device from its making to its end: an allocator of our own
/// takes the place of libtorch's, whose tensors on that device have no memory to count. One may
/// live at a time; use from one thread. Tensors may outlive it.
class MetaMemory {
 public:
  explicit MetaMemory(MetaKernels kernels);
  ~MetaMemory();
  MetaMemory(const MetaMemory&) = delete;
  MetaMemory& operator=(const MetaMemory&) = delete;

  /// Bytes that are alive now, of all kinds.
  int64_t live_bytes() const;
  /// Starts a new recording from what is alive now.
  void restart();
  /// What was alive when most was, since the last restart.
  MemoryUse peak() const;
  /// What is alive now.
  MemoryUse live() const;
  /// Bytes that forget_planned_memory took out of the count since the last restart.
  int64_t forgotten_bytes() const;
  /// Bytes and number of the allocations since the last restart.
  int64_t allocated_bytes() const;
  int64_t allocations() const;
};

/// Takes a living tensor out of the count: one that stands for what lies elsewhere (another rank,
/// the host's memory). Without a MetaMemory nothing happens.
void forget_planned_memory(const at::Tensor& tensor);
/// Counts a tensor's memory as of this kind from its making on; the whole storage of a view.
void tag_planned_memory(const at::Tensor& tensor, MemoryKind kind);

/// Whether a MetaMemory lives: tensors without values are what the program runs on.
bool planning();
/// Whether operators on the meta device stand for the CPU's kernels.
bool planning_cpu_kernels();

/// The value of a tensor with one element; 0 on the meta device, where nothing has a value.
double host_value(const at::Tensor& scalar);

}  // namespace triptych

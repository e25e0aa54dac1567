#include "kernels/memory_ledger.h"

#include <c10/core/StorageImpl.h>

#include "kernels/memory_scope.h"
#include "kernels/memory_state.h"
#include "kernels/meta_memory.h"

namespace triptych {

using books::Block;

MemoryTotals memory_totals() {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  return self.now;
}

MemoryTotals memory_peak() {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  self.settle_peak();
  return self.peak;
}

MemoryTotals memory_peak_of_run() {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  self.settle_run_peak();
  return self.run_peak;
}

void reset_memory_peak() {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  self.settle_run_peak();
  self.peak = self.now;
}

void tag_memory(const at::Tensor& tensor, MemoryKind kind, std::string_view name) {
  if (!tensor.defined()) return;
  if (tensor.is_sparse()) {
    tag_memory(tensor._indices(), kind, name);
    tag_memory(tensor._values(), kind, name);
    return;
  }
  if (!tensor.has_storage() || tensor.numel() == 0) return;
  if (tensor.is_meta()) return tag_planned_memory(tensor, kind);
  const auto& data = tensor.storage().data_ptr();
  auto& self = books::books(tensor.is_cpu() ? MemorySpace::kHost : MemorySpace::kDevice);
  const uint16_t layer = memory_layer_of(name);
  const std::lock_guard lock(self.mutex);
  Block* block = nullptr;
  if (data.get_deleter() == &books::release_cpu_block) {
    block = static_cast<Block*>(data.get_context()) - 1;
  } else if (const auto it = self.outside.find(data.get()); it != self.outside.end()) {
    block = it->second.get();
  }
  if (block == nullptr) return;
  const MemoryTag tag{.layer = layer, .kind = kind, .phase = block->tag.phase};
  const auto begin = static_cast<int64_t>(static_cast<const char*>(tensor.const_data_ptr()) -
                                          static_cast<const char*>(block->data));
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  if (bytes >= block->bytes || !tensor.is_contiguous()) {
    self.retag(*block, tag);
  } else if (begin >= 0 && begin + bytes <= block->bytes) {
    self.retag_part(*block, begin, bytes, tag);
  }
}

}  // namespace triptych

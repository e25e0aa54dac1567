#include "kernels/meta_memory.h"

#include <c10/core/Allocator.h>

#include <mutex>
#include <numeric>
#include <unordered_map>

#include "base/error.h"
#include "kernels/memory_scope.h"
#include "kernels/meta_kernels.h"

namespace triptych {
namespace {

struct Block {
  int64_t bytes = 0;
  size_t label = 0;  ///< place in Recording::kinds
};

/// An allocation or, with negative bytes, its end.
struct Event {
  int64_t bytes = 0;
  size_t label = 0;
};

struct Recording {
  std::mutex mutex;  // a tensor may end on another thread
  bool active = false;
  MetaKernels kernels = MetaKernels::kCpu;
  std::vector<MetaMemoryKind> kinds;  ///< of every allocation, in order of making
  std::vector<Event> events;
  std::unordered_map<const void*, Block*> blocks;  ///< alive, by storage context
  int64_t live = 0, allocated = 0, count = 0, forgotten = 0;
};

Recording& recording() {
  static Recording instance;
  return instance;
}

MetaMemoryKind planned_kind(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kParameter:
      return MetaMemoryKind::kParameters;
    case MemoryKind::kGradient:
      return MetaMemoryKind::kGradients;
    case MemoryKind::kOptimizerState:
      return MetaMemoryKind::kOptimizer;
    case MemoryKind::kInput:
    case MemoryKind::kCommunication:
      return MetaMemoryKind::kBuffers;
    default:
      return MetaMemoryKind::kActivations;
  }
}

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  auto& r = recording();
  const std::lock_guard lock(r.mutex);
  if (r.blocks.erase(block) > 0) {  // else of an earlier recording
    r.live -= block->bytes;
    r.events.push_back({-block->bytes, block->label});
  }
  delete block;
}

class CountingMetaAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device meta(c10::DeviceType::Meta);
    auto& r = recording();
    const auto kind = planned_kind(memory_place().tag.kind);
    const std::lock_guard lock(r.mutex);
    if (!r.active || bytes == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, meta};
    auto* block = new Block{static_cast<int64_t>(bytes), r.kinds.size()};
    r.kinds.push_back(kind);
    r.events.push_back({block->bytes, block->label});
    r.blocks.emplace(block, block);
    r.live += block->bytes;
    r.allocated += block->bytes;
    ++r.count;
    return {nullptr, block, &release, meta};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* /*dest*/, const void* /*src*/, size_t /*count*/) const override {}
};

/// The events replayed over what was alive at the start.
template <class Visit>
void replay(const Recording& r, const Visit& visit) {
  MemoryUse use;
  for (const auto& event : r.events) {
    use.bytes[static_cast<size_t>(r.kinds[event.label])] += event.bytes;
    visit(use);
  }
}

}  // namespace

int64_t MemoryUse::total() const { return std::accumulate(bytes.begin(), bytes.end(), int64_t{0}); }

MetaMemory::MetaMemory(MetaKernels kernels) {
  static CountingMetaAllocator allocator;
  auto& r = recording();
  require(!r.active, "planning: two recordings at a time; this is a bug");
  replace_sparse_sums();
  c10::SetAllocator(c10::DeviceType::Meta, &allocator, /*priority=*/1);
  const std::lock_guard lock(r.mutex);
  r.kinds.clear();
  r.events.clear();
  r.live = r.allocated = r.count = r.forgotten = 0;
  r.kernels = kernels;
  r.active = true;
}

MetaMemory::~MetaMemory() {
  auto& r = recording();
  const std::lock_guard lock(r.mutex);
  r.active = false;
  r.blocks.clear();
}

int64_t MetaMemory::live_bytes() const { return recording().live; }

void MetaMemory::restart() {
  auto& r = recording();
  const std::lock_guard lock(r.mutex);
  std::vector<MetaMemoryKind> kinds;
  r.events.clear();
  for (auto& [context, block] : r.blocks) {
    kinds.push_back(r.kinds[block->label]);
    block->label = kinds.size() - 1;
    r.events.push_back({block->bytes, block->label});
  }
  r.kinds = std::move(kinds);
  r.allocated = r.count = r.forgotten = 0;
}

MemoryUse MetaMemory::peak() const {
  const auto& r = recording();
  MemoryUse peak;
  int64_t most = -1;
  replay(r, [&](const MemoryUse& use) {
    if (use.total() <= most) return;
    most = use.total();
    peak = use;
  });
  return peak;
}

MemoryUse MetaMemory::live() const {
  MemoryUse last;
  replay(recording(), [&](const MemoryUse& use) { last = use; });
  return last;
}

int64_t MetaMemory::forgotten_bytes() const { return recording().forgotten; }
int64_t MetaMemory::allocated_bytes() const { return recording().allocated; }
int64_t MetaMemory::allocations() const { return recording().count; }

void forget_planned_memory(const at::Tensor& tensor) {
  auto& r = recording();
  const std::lock_guard lock(r.mutex);
  const auto it = r.blocks.find(tensor.storage().data_ptr().get_context());
  if (it == r.blocks.end()) return;
  r.live -= it->second->bytes;
  r.forgotten += it->second->bytes;
  r.events.push_back({-it->second->bytes, it->second->label});
  r.blocks.erase(it);
}

void tag_planned_memory(const at::Tensor& tensor, MemoryKind kind) {
  auto& r = recording();
  const std::lock_guard lock(r.mutex);
  const auto it = r.blocks.find(tensor.storage().data_ptr().get_context());
  if (it != r.blocks.end()) r.kinds[it->second->label] = planned_kind(kind);
}

bool planning() { return recording().active; }
bool planning_cpu_kernels() {
  return recording().active && recording().kernels == MetaKernels::kCpu;
}

double host_value(const at::Tensor& scalar) {
  return scalar.is_meta() ? 0.0 : scalar.item<double>();
}

}  // namespace triptych

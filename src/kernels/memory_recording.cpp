#include <algorithm>
#include <utility>

#include "base/error.h"
#include "kernels/device_memory.h"
#include "kernels/memory_ledger.h"
#include "kernels/memory_scope.h"
#include "kernels/memory_state.h"

namespace triptych {

using books::Block;

void start_memory_recording(int64_t max_events, StackOf stack_of) {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  require(!self.recording, "memory: a recording is under way already");
  self.recording = std::make_unique<books::Recording>();
  self.recording->begin_ns = books::now_ns();
  self.recording->max_events = max_events;
  self.recording->stack_of = stack_of;
  self.recording->before = self.alive();
  for (Block* b = self.first; b != nullptr; b = b->next) b->event = -1;
}

bool memory_recording() {
  auto& self = books::run_books();
  const std::lock_guard lock(self.mutex);
  return self.recording != nullptr;
}

namespace {

std::vector<std::string> layer_names(size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i)
    names.emplace_back(memory_layer_name(static_cast<uint16_t>(i)));
  return names;
}

void name_threads(MemoryRecording& recording) {
  auto& all = books::threads();
  const std::lock_guard lock(all.mutex);
  recording.threads = all.names;
  recording.thread_ids = all.ids;
}

}  // namespace

MemoryRecording stop_memory_recording() {
  auto& self = books::run_books();
  MemoryRecording out;
  out.segments = device_segments();  // before the lock: the allocator's comes first
  const std::lock_guard lock(self.mutex);
  require(self.recording != nullptr, "memory: no recording is under way");
  auto& recording = *self.recording;
  for (Block* b = self.first; b != nullptr; b = b->next) {
    if (auto* made = recording.find(b->event)) made->tag = b->tag;
    b->event = -1;
  }
  const auto size = static_cast<int64_t>(recording.events.size());
  out.dropped = recording.next - size;
  if (out.dropped > 0)  // the ring begins in its middle
    std::ranges::rotate(recording.events, recording.events.begin() + recording.next % size);
  out.begin_ns = recording.begin_ns;
  out.end_ns = books::now_ns();
  out.before = std::move(recording.before);
  out.events = std::move(recording.events);
  out.after = self.alive();
  out.layers = layer_names(self.now.by_layer.size());
  name_threads(out);
  self.recording.reset();
  return out;
}

MemoryRecording memory_blocks() {
  auto& self = books::run_books();
  MemoryRecording out;
  out.segments = device_segments();
  const std::lock_guard lock(self.mutex);
  out.begin_ns = out.end_ns = books::now_ns();
  out.before = out.after = self.alive();
  out.layers = layer_names(self.now.by_layer.size());
  name_threads(out);
  return out;
}

}  // namespace triptych

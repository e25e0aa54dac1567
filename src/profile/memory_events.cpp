#include "profile/memory_events.h"

#include <iterator>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/format.h"
#include "base/json.h"
#include "profile/own_events.h"

namespace triptych {

void write_memory_events(const MemoryRecording& recording, const StackNames& stacks,
                         int64_t base_ns, int64_t pid, int device,
                         const std::function<void(std::string_view)>& put) {
  constexpr size_t kPiece = size_t{1} << 20;
  std::vector<std::string> layers;
  for (const auto& name : recording.layers) layers.push_back(dump_json(Json(name)));
  int64_t allocated = 0, reserved = 0;
  for (const auto& segment : recording.segments) reserved += segment.bytes;
  std::string text;
  const auto add = [&](int64_t time_ns, uint64_t address, int64_t bytes, MemoryTag tag,
                       int64_t thread, uint32_t stack = 0) {
    allocated += bytes;
    fmt::format_to(
        std::back_inserter(text),
        "\n  {{\n    \"ph\": \"i\", \"cat\": \"cpu_instant_event\", \"s\": \"t\", \"name\": "
        "\"[memory]\", \"pid\": {}, \"tid\": {},\n    \"ts\": {},\n    \"args\": {{\"Total "
        "Reserved\": {}, \"Total Allocated\": {}, \"Bytes\": {}, \"Addr\": {}, \"Device Id\": {}, "
        "\"Device Type\": {}, \"Category\": \"{}\", \"Module\": {}{}{}}}\n  }},",
        pid, thread, trace_time(time_ns, base_ns), reserved, allocated, bytes, address, device,
        device < 0 ? 0 : 1, name_of(tag.kind), layers.at(tag.layer),
        stack == 0 ? "" : ", \"Call stack\": ", stack == 0 ? "" : stacks.json(stack));
    if (text.size() < kPiece) return;
    put(text);
    text.clear();
  };
  // A buffer that several layers share stands here in parts, and goes in parts.
  std::unordered_map<uint64_t, std::vector<const MemoryBlock*>> parts;
  for (const auto& b : recording.before) {
    add(recording.begin_ns, b.address, b.bytes, b.tag, pid);
    parts[b.block].push_back(&b);
  }
  for (const auto& e : recording.events) {
    const auto thread = recording.thread_ids.at(e.thread);
    const auto known = e.bytes < 0 ? parts.find(e.block) : parts.end();
    if (known == parts.end() || known->second.size() < 2) {
      add(e.time_ns, e.address, e.bytes, e.tag, thread, e.stack);
    } else {
      for (const auto* b : known->second) add(e.time_ns, b->address, -b->bytes, b->tag, thread);
    }
  }
  put(text);
}

}  // namespace triptych

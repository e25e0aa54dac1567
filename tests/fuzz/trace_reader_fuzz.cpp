// A trace from anywhere: whatever comes, either columns whose positions are all inside, or a
// DataError.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "check.h"
#include "insight/step_times.h"
#include "insight/trace_reader.h"
#include "insight/trace_tree.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  using namespace triptych::insight;
  try {
    const auto t = read_trace_text(as_text(data, size), "fuzz");
    uint64_t events = 0;
    for (const auto& track : t.tracks()) events += track.num_events;
    check(events == t.num_events());
    for (EventId e = 0; e < t.num_events(); ++e) {
      check(t.dur(e) >= 0 && t.ts(e) >= t.begin_ns() && t.end(e) <= t.end_ns());
      check(t.name_id(e) < t.num_strings());
      check(t.parent(e) == kNone || t.depth(t.parent(e)) < t.depth(e));
      check(t.linked(e) == kNone || t.linked(e) < t.num_events());
      check(t.track_of(e) < t.tracks().size());
      (void)t.arguments(e);
      (void)module_of(t, e);
    }
    const auto times = split_window(lanes_of(t), t.begin_ns(), t.end_ns());
    check(times.total ==
          times.compute_only + times.overlapped + times.exposed + times.free + times.preparing);
  } catch (const DataError&) {
  }
  return 0;
}

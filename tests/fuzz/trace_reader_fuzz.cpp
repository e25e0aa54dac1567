// A trace from anywhere: whatever comes, either columns whose positions are all inside, or a
// DataError; and whatever was read, every analysis answers, or says why it cannot.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "insight/flame.h"
#include "insight/queries.h"
#include "insight/report.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/trace_reader.h"
#include "insight/trace_tree.h"

namespace {

using namespace triptych;
using namespace triptych::insight;

void check_columns(const Trace& t) {
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
}

/// As a viewer answers: a document that can be written, or an Error.
void answers(const std::function<Json()>& question) {
  try {
    (void)question().dump(-1, ' ', false, Json::error_handler_t::replace);
  } catch (const Error&) {
  }
}

void check_analyses(const Trace& trace) {
  // Twice the same trace: calls of two ranks are matched, and links are between two.
  const auto run = std::make_shared<Run>(Run::of({trace, trace}));
  const Queries q(run);
  for (const auto& table : table_names()) answers([&] { return table_by_name(q, table, {}); });
  for (const bool modules : {false, true})
    answers([&] { return q.flame({}, {.modules = modules}); });
  answers([&] { return q.summary_document({}, 5); });
  answers([&] { return q.pipeline({}); });
  answers([&] { return q.critical_path({}); });
  answers([&] { return q.memory_curve({}, 100); });
  answers([&] { return q.memory_categories({}); });
  for (const char* group : {"shapes", "module", "stack"})
    answers([&] { return q.ops({.group = group}); });
  const Scope first{.rank = 0, .step = trace.steps().empty() ? 0 : trace.steps()[0].number};
  answers([&] { return q.pipeline(first); });
  answers([&] { return q.comm_matrix(first, "", ""); });
  std::vector<uint32_t> tracks;
  for (uint32_t k = 0; k < trace.tracks().size() && k < 64; ++k) tracks.push_back(track_id(0, k));
  const int64_t begin = run->aligned(0, trace.begin_ns()), end = run->aligned(0, trace.end_ns());
  answers([&] { return tracks_json(*run); });
  answers([&] { return flows_json(*run, tracks, begin, end + 1, 20); });
  answers([&] { return range_json(*run, tracks, begin, end + 1); });
  for (EventId e = 0; e < trace.num_events() && e < 4; ++e)
    answers([&] { return slice_json(*run, slice_id(0, e)); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto trace = read_trace_text(as_text(data, size), "fuzz");
    check_columns(trace);
    check_analyses(trace);
  } catch (const DataError&) {
  }
  return 0;
}

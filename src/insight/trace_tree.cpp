#include "insight/trace_tree.h"

#include <algorithm>

namespace triptych::insight {

EventRange events_between(const Trace& t, const Row& row, int64_t t0, int64_t t1) {
  const auto ts = t.ts_column().subspan(row.first_event, row.num_events);
  auto first = std::ranges::upper_bound(ts, t0);
  if (first != ts.begin()) --first;
  const auto last = std::ranges::lower_bound(ts, t1);
  const auto begin = static_cast<EventId>(first - ts.begin());
  const auto end = std::max(begin, static_cast<EventId>(last - ts.begin()));
  return {row.first_event + begin, row.first_event + end};
}

std::vector<EventId> children_of(const Trace& t, EventId e) {
  std::vector<EventId> children;
  const Track& track = t.tracks()[t.track_of(e)];
  // An overlapping sibling may have pushed a child to a deeper row than the next.
  for (uint32_t r = t.depth(e) + 1; r < track.num_rows; ++r) {
    const auto range = events_between(t, t.rows()[track.first_row + r], t.ts(e), t.end(e) + 1);
    for (EventId c = range.first; c < range.last; ++c)
      if (t.parent(c) == e) children.push_back(c);
    if (range.first == range.last && r > t.depth(e) + 1u) break;
  }
  std::ranges::sort(children, {}, [&](EventId c) { return t.ts(c); });
  return children;
}

int64_t self_ns(const Trace& t, EventId e) {
  int64_t self = t.dur(e);
  for (const EventId c : children_of(t, e)) self -= t.dur(c);
  return std::max<int64_t>(self, 0);
}

std::vector<int64_t> self_times(const Trace& t) {
  std::vector<int64_t> self(t.dur_column().begin(), t.dur_column().end());
  for (EventId e = 0; e < t.num_events(); ++e)
    if (t.parent(e) != kNone) self[t.parent(e)] -= t.dur(e);
  for (auto& ns : self) ns = std::max<int64_t>(ns, 0);
  return self;
}

EventId enclosing(const Trace& t, EventId e, Category category) {
  while (e != kNone && t.category(e) != category) e = t.parent(e);
  return e;
}

std::string module_of(const Trace& t, EventId e) {
  const Category c = t.category(e);
  const bool device = c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset ||
                      c == Category::kSync;
  if (device) e = t.linked(e);
  constexpr std::string_view kPrefix = "nn.Module: ";
  std::string python;
  for (int hops = 0; e != kNone && hops < 10000; e = t.parent(e), ++hops) {
    const auto name = t.name(e);
    if (name.starts_with(kPrefix)) {
      const bool own_path = t.category(e) != Category::kPython;
      if (own_path) return std::string(name.substr(kPrefix.size()));
      // Python's profiler names classes with a counter, not paths: join them.
      python = python.empty() ? std::string(name.substr(kPrefix.size()))
                              : std::string(name.substr(kPrefix.size())) + "." + python;
    }
  }
  return python;
}

EventId op_of(const Trace& t, EventId e) {
  const Category c = t.category(e);
  if (c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset) e = t.linked(e);
  return e == kNone ? kNone : enclosing(t, e, Category::kCpuOp);
}

std::optional<int64_t> step_of(const Trace& t, EventId e) {
  const Category c = t.category(e);
  const bool device = c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset;
  int64_t at = t.ts(e);
  if (device && t.linked(e) != kNone) at = t.ts(t.linked(e));
  for (const auto& step : t.steps())
    if (at >= step.begin_ns && at < step.end_ns) return step.number;
  return std::nullopt;
}

}  // namespace triptych::insight

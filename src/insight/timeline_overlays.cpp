// What is drawn over the lanes of the timeline: arrows and curves.
#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {

Json flows_json(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1,
                uint32_t limit) {
  struct Arrow {
    int file;
    EventId from, to;
  };
  std::vector<Arrow> arrows;
  std::map<size_t, std::vector<bool>> wanted;
  for (const uint32_t id : tracks) {
    const size_t file = id >> 16, track = id & 0xffff;
    if (file >= run.files().size() || track >= run.files()[file].trace.tracks().size()) continue;
    auto& list = wanted[file];
    list.resize(run.files()[file].trace.tracks().size());
    list[track] = true;
  }
  for (const auto& entry : wanted) {
    const auto& on = entry.second;
    const int file = static_cast<int>(entry.first);
    const Trace& t = run.files()[entry.first].trace;
    const int64_t from = run.unaligned(file, t0), to = run.unaligned(file, t1);
    const auto seen = [&](EventId e) {
      return on[t.track_of(e)] && t.ts(e) < to && t.end(e) >= from;
    };
    const auto add = [&](EventId a, EventId b) {
      if (seen(a) || seen(b)) arrows.push_back({file, a, b});
    };
    for (const auto& flow : t.flows()) add(flow.from, flow.to);
    for (uint32_t k = 0; k < t.tracks().size(); ++k) {
      const Track& track = t.tracks()[k];
      if (!track.is_device()) continue;
      for (uint32_t r = 0; r < track.num_rows; ++r) {
        const auto range = events_between(t, t.rows()[track.first_row + r], from, to);
        for (EventId e = range.first; e < range.last; ++e)
          if (t.linked(e) != kNone) add(t.linked(e), e);
      }
    }
  }
  // Too many to draw: every n-th in the order of time, so that their density still shows.
  std::ranges::sort(arrows, {}, [&](const Arrow& a) {
    const Trace& t = run.files()[static_cast<size_t>(a.file)].trace;
    return std::tuple(run.aligned(a.file, t.ts(a.from)), a.file, a.from, a.to);
  });
  const size_t total = arrows.size(), shown = std::min<size_t>(total, limit);
  Json flows = Json::array();
  for (size_t i = 0; i < shown; ++i) {
    const Arrow& arrow = arrows[i * total / shown];
    const Trace& t = run.files()[static_cast<size_t>(arrow.file)].trace;
    flows.push_back({{"from", slice_id(arrow.file, arrow.from)},
                     {"to", slice_id(arrow.file, arrow.to)},
                     {"from_track", track_id(arrow.file, t.track_of(arrow.from))},
                     {"to_track", track_id(arrow.file, t.track_of(arrow.to))},
                     {"from_ns", run.aligned(arrow.file, t.ts(arrow.from))},
                     {"to_ns", run.aligned(arrow.file, t.ts(arrow.to))}});
  }
  return {{"flows", std::move(flows)}, {"total", total}, {"truncated", shown < total}};
}

Json counters_json(const Run& run, uint32_t id, int64_t t0, int64_t t1, uint32_t n) {
  n = std::clamp<uint32_t>(n, 1, 10000);
  Json out{{"track", id}, {"t0", t0}, {"t1", t1}};
  std::vector<double> low(n), high(n), sum(n);
  std::vector<int64_t> count(n);
  const size_t file = id >> 16;
  require(file < run.files().size() && t1 > t0, "counters: no such track, or an empty range");
  const Trace& t = run.files()[file].trace;
  const auto span = static_cast<double>(t1 - t0);
  double before = 0;
  bool any_before = false;
  const auto add = [&](int64_t ts, double value) {
    const int64_t at = run.aligned(static_cast<int>(file), ts);
    if (at < t0) before = value, any_before = true;
    if (at < t0 || at >= t1) return;
    const auto b =
        std::min<size_t>(n - 1, static_cast<size_t>(static_cast<double>(at - t0) / span * n));
    low[b] = count[b] ? std::min(low[b], value) : value;
    high[b] = count[b] ? std::max(high[b], value) : value;
    sum[b] += value;
    ++count[b];
  };
  if ((id & 0xffff) == 0xffff) {
    for (const auto& m : t.memory())
      if (m.total_allocated >= 0) add(m.ts_ns, static_cast<double>(m.total_allocated));
  } else {
    for (const auto& c : t.counters())
      if (c.track == (id & 0xffff)) add(c.ts_ns, c.value);
  }
  Json mins = Json::array(), maxs = Json::array(), avgs = Json::array();
  for (uint32_t b = 0; b < n; ++b) {
    if (count[b]) {
      mins.push_back(low[b]), maxs.push_back(high[b]),
          avgs.push_back(sum[b] / static_cast<double>(count[b]));
      before = sum[b] / static_cast<double>(count[b]);
      any_before = true;
    } else if (any_before) {
      mins.push_back(before), maxs.push_back(before), avgs.push_back(before);
    } else {
      mins.push_back(nullptr), maxs.push_back(nullptr), avgs.push_back(nullptr);
    }
  }
  out["min"] = std::move(mins), out["max"] = std::move(maxs), out["avg"] = std::move(avgs);
  return out;
}

}  // namespace triptych::insight

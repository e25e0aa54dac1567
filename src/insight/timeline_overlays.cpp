// What is drawn over the lanes of the timeline: arrows and curves.
#include <algorithm>
#include <map>
#include <vector>

#include "base/error.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

/// Arrows that begin or end on the wanted tracks within a range of time.
class Arrows {
 public:
  Arrows(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1)
      : run_(run), t0_(t0), t1_(t1) {
    for (const uint32_t id : tracks) {
      const size_t file = id >> 16, track = id & 0xffff;
      if (file >= run.files().size() || track >= run.files()[file].trace.tracks().size()) continue;
      auto& list = wanted_[static_cast<int>(file)];
      list.resize(run.files()[file].trace.tracks().size());
      list[track] = true;
    }
  }

  /// visit(file, from, to), always in the same order: that of the events, so by time on each row.
  template <class Visit>
  void each(Visit&& visit) const {
    for (const auto& [file, on] : wanted_) {
      const Trace& t = run_.files()[static_cast<size_t>(file)].trace;
      const int64_t from = run_.unaligned(file, t0_), to = run_.unaligned(file, t1_);
      const auto seen = [&, &tracks = on](EventId e) {
        return t.ts(e) < to && t.end(e) >= from && tracks[t.track_of(e)];
      };
      for (const auto& flow : t.flows())
        if (seen(flow.from) || seen(flow.to)) visit(file, flow.from, flow.to);
      for (uint32_t k = 0; k < t.tracks().size(); ++k) {
        const Track& track = t.tracks()[k];
        if (!track.is_device()) continue;
        for (uint32_t r = 0; r < track.num_rows; ++r) {
          const auto range = events_between(t, t.rows()[track.first_row + r], from, to);
          for (EventId e = range.first; e < range.last; ++e)
            if (t.linked(e) != kNone && (seen(e) || seen(t.linked(e)))) visit(file, t.linked(e), e);
        }
      }
    }
  }

 private:
  const Run& run_;
  int64_t t0_, t1_;
  std::map<int, std::vector<bool>> wanted_;  ///< file -> tracks
};

}  // namespace

Json flows_json(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1,
                uint32_t limit) {
  const Arrows arrows(run, tracks, t0, t1);
  size_t total = 0;
  arrows.each([&](int, EventId, EventId) { ++total; });
  // Too many to draw: every n-th, so that their density still shows. None is kept meanwhile: in
  // view of a whole run there may be as many as events.
  const size_t shown = std::min<size_t>(total, limit);
  Json flows = Json::array();
  size_t number = 0, next = 0;
  arrows.each([&](int file, EventId from, EventId to) {
    if (number++ != next || flows.size() == shown) return;
    const Trace& t = run.files()[static_cast<size_t>(file)].trace;
    flows.push_back({{"from", slice_id(file, from)},
                     {"to", slice_id(file, to)},
                     {"from_track", track_id(file, t.track_of(from))},
                     {"to_track", track_id(file, t.track_of(to))},
                     {"from_depth", t.depth(from)},
                     {"to_depth", t.depth(to)},
                     {"from_ns", run.aligned(file, t.ts(from))},
                     {"to_ns", run.aligned(file, t.ts(to))}});
    next = flows.size() * total / shown;
  });
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

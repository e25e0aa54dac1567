#include "insight/idle.h"

#include <algorithm>
#include <map>

#include "insight/intervals.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

/// The record that covers most of [begin, end) on a track: the deepest that covers at least half,
/// else the longest part; "" when none does.
std::string cause_on(const Trace& t, uint32_t track_number, int64_t begin, int64_t end) {
  const Track& track = t.tracks()[track_number];
  EventId best = kNone;
  int64_t most = 0;
  for (uint32_t r = 0; r < track.num_rows; ++r) {
    const auto range = events_between(t, t.rows()[track.first_row + r], begin, end);
    EventId of_row = kNone;
    int64_t part_of_row = 0;
    for (EventId e = range.first; e < range.last; ++e) {
      if (t.name(e).starts_with("ProfilerStep#") || t.category(e) == Category::kSpan) continue;
      const int64_t part = std::min(t.end(e), end) - std::max(t.ts(e), begin);
      if (part > part_of_row) part_of_row = part, of_row = e;
    }
    if (of_row != kNone && (part_of_row * 2 >= end - begin || part_of_row > most))
      best = of_row, most = part_of_row;
  }
  return best == kNone || most * 4 < end - begin ? "" : display_name(t.name(best));
}

}  // namespace

std::vector<IdleGap> idle_gaps(const Trace& t, int64_t short_gap_ns) {
  std::vector<IdleGap> out;
  for (uint32_t k = 0; k < t.tracks().size(); ++k) {
    const Track& track = t.tracks()[k];
    if (!track.is_device()) continue;
    std::vector<EventId> kernels;
    for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e)
      if (t.work(e) != Work::kNone && t.work(e) != Work::kSync) kernels.push_back(e);
    std::ranges::sort(kernels, {}, [&](EventId e) { return t.ts(e); });
    int64_t end = INT64_MIN;
    for (const EventId e : kernels) {
      if (end != INT64_MIN && t.ts(e) > end) {
        IdleGap gap{k, e, end, t.ts(e), IdleGap::kOther};
        const EventId launch = t.linked(e);
        if (launch != kNone && t.ts(launch) > end)
          gap.kind = IdleGap::kHostWait;
        else if (t.ts(e) - end < short_gap_ns)
          gap.kind = IdleGap::kKernelWait;
        out.push_back(gap);
      }
      end = std::max(end, t.end(e));
    }
  }
  return out;
}

Json idle_json(const Run& run, const std::vector<int>& files, std::optional<int64_t> step) {
  static constexpr const char* kKinds[] = {"host_wait", "kernel_wait", "other"};
  std::map<std::string, std::pair<int64_t, int64_t>> causes;
  Json rows = Json::array();
  for (const int file : files) {
    const auto& f = run.files()[static_cast<size_t>(file)];
    const Trace& t = f.trace;
    int64_t from = INT64_MIN, to = INT64_MAX;
    for (const auto& s : t.steps())
      if (step && s.number == *step) from = s.begin_ns, to = s.end_ns;
    if (!t.has_device_work()) {
      const Lanes lanes = lanes_of(t);
      auto busy = lanes.compute;
      busy.insert(busy.end(), lanes.communication.begin(), lanes.communication.end());
      busy = merge(std::move(busy));
      int64_t total = 0, count = 0;
      for (const auto& s : t.steps()) {
        if (s.begin_ns < from || s.begin_ns >= to) continue;
        for (const auto& gap : subtract({{s.begin_ns, s.end_ns}}, busy)) {
          total += gap.length();
          ++count;
          const auto name = cause_on(t, s.track, gap.begin, gap.end);
          auto& [n, ns] = causes[name.empty() ? "(nothing recorded)" : name];
          ++n, ns += gap.length();
        }
      }
      rows.push_back({{"rank", f.rank},
                      {"stream", "cpu"},
                      {"kind", "host"},
                      {"count", count},
                      {"total_ns", total}});
      continue;
    }
    std::map<std::pair<uint32_t, int>, std::pair<int64_t, int64_t>> sums;
    for (const auto& gap : idle_gaps(t)) {
      if (gap.end_ns <= from || gap.begin_ns >= to) continue;
      auto& [n, ns] = sums[{gap.track, gap.kind}];
      ++n, ns += gap.end_ns - gap.begin_ns;
      if (gap.kind != IdleGap::kHostWait) continue;
      const EventId launch = t.linked(gap.kernel);
      const auto name = cause_on(t, t.track_of(launch), gap.begin_ns, t.ts(launch));
      auto& [m, length] = causes[name.empty() ? "(nothing recorded)" : name];
      ++m, length += gap.end_ns - gap.begin_ns;
    }
    for (const auto& [key, sum] : sums)
      rows.push_back({{"rank", f.rank},
                      {"stream", std::to_string(t.tracks()[key.first].tid)},
                      {"kind", kKinds[key.second]},
                      {"count", sum.first},
                      {"total_ns", sum.second}});
  }
  std::vector<std::pair<std::string, std::pair<int64_t, int64_t>>> order(causes.begin(),
                                                                         causes.end());
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& c) { return c.second.second; });
  Json list = Json::array();
  for (size_t i = 0; i < order.size() && i < 50; ++i)
    list.push_back({{"name", order[i].first},
                    {"count", order[i].second.first},
                    {"total_ns", order[i].second.second}});
  Json out{{"rows", std::move(rows)}, {"causes", std::move(list)}};
  if (out["rows"].empty()) out["empty"] = "no steps and no device work were recorded";
  return out;
}

}  // namespace triptych::insight

#include "insight/timeline.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "insight/event_args.h"
#include "insight/intervals.h"
#include "insight/tolerant_json.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

const TraceFile& file_at(const Run& run, uint64_t slice) {
  const uint64_t file = slice >> 32;
  require(file < run.files().size(), "slice ", slice, ": there is no such file");
  const auto& f = run.files()[file];
  require((slice & 0xffffffff) < f.trace.num_events(), "slice ", slice, ": there is no such event");
  return f;
}

Json brief(const Run& run, int file, EventId e) {
  const auto& t = run.files()[static_cast<size_t>(file)].trace;
  return {{"id", slice_id(file, e)},
          {"name", display_name(t.name(e))},
          {"track", track_id(file, t.track_of(e))},
          {"start_ns", run.aligned(file, t.ts(e))},
          {"duration_ns", t.dur(e)}};
}

std::string track_title(const Trace& t, const Track& track) {
  const auto name = t.string(track.name);
  if (track.device >= 0)
    return name.empty() || name.starts_with("stream") || name == "0"
               ? "stream " + std::to_string(track.tid)
               : display_name(name);
  if (name.empty()) return "thread " + std::to_string(track.tid);
  return display_name(name);
}

/// The part of a merged list that lies within [begin, end).
std::vector<Interval> covered_in(const std::vector<Interval>& merged, int64_t begin, int64_t end) {
  auto first = std::ranges::upper_bound(merged, begin, {}, &Interval::end);
  std::vector<Interval> out;
  for (; first != merged.end() && first->begin < end; ++first) out.push_back(*first);
  return out;
}

}  // namespace

std::string display_name(std::string_view name) {
  auto text = valid_utf8(name.substr(0, 256));
  return text;
}

Json tracks_json(const Run& run, int64_t rank, int64_t span) {
  Json out{{"ranks", Json::array()}};
  int64_t begin = INT64_MAX, end = INT64_MIN;
  for (const int file : run.files_of_span(span)) {
    const auto& f = run.files()[static_cast<size_t>(file)];
    if (rank >= 0 && f.rank != rank) continue;
    const Trace& t = f.trace;
    std::vector<std::pair<double, double>> limits(t.tracks().size(), {0, 0});
    std::vector<int64_t> samples(t.tracks().size());
    for (const auto& c : t.counters()) {
      auto& [low, high] = limits[c.track];
      if (samples[c.track]++ == 0) low = high = c.value;
      low = std::min(low, c.value), high = std::max(high, c.value);
    }
    Json processes = Json::array();
    std::map<std::pair<int64_t, StringId>, size_t> index;
    for (uint32_t i = 0; i < t.tracks().size(); ++i) {
      const Track& track = t.tracks()[i];
      if (track.num_events == 0 && samples[i] == 0) continue;
      bool only_marks = track.num_events > 0;
      for (EventId e = track.first_event; only_marks && e < track.first_event + track.num_events;
           ++e)
        only_marks = t.category(e) == Category::kSpan;
      if (only_marks) continue;
      const auto [at, added] = index.try_emplace({track.pid, track.process}, processes.size());
      if (added) {
        const auto name = t.string(track.process);
        processes.push_back(
            {{"pid", track.pid},
             {"name", name.empty() ? "process " + std::to_string(track.pid) : display_name(name)},
             {"device", track.device},
             {"tracks", Json::array()}});
      }
      Json row{{"id", track_id(file, i)},
               {"name", track_title(t, track)},
               {"kind", samples[i]          ? "counter"
                        : track.is_device() ? "stream"
                                            : "thread"},
               {"device", track.device},
               {"tid", track.tid},
               {"depth", track.num_rows},
               {"count", track.num_events},
               {"begin_ns", run.aligned(file, track.begin_ns)},
               {"end_ns", run.aligned(file, track.end_ns)}};
      if (samples[i]) {
        row["count"] = samples[i];
        row["min"] = limits[i].first;
        row["max"] = limits[i].second;
      }
      processes[at->second]["tracks"].push_back(std::move(row));
    }
    if (!t.memory().empty()) {
      // The curve of allocated bytes is a counter of its own; its id lies behind the real tracks.
      int64_t high = 0;
      for (const auto& m : t.memory()) high = std::max(high, m.total_allocated);
      Json memory{{"pid", -1}, {"name", "memory"}, {"device", -1}, {"tracks", Json::array()}};
      memory["tracks"].push_back({{"id", track_id(file, 0xffff)},
                                  {"name", "allocated bytes"},
                                  {"kind", "counter"},
                                  {"device", -1},
                                  {"tid", -1},
                                  {"depth", 0},
                                  {"count", t.memory().size()},
                                  {"begin_ns", run.aligned(file, t.memory().front().ts_ns)},
                                  {"end_ns", run.aligned(file, t.memory().back().ts_ns)},
                                  {"min", 0},
                                  {"max", high}});
      processes.push_back(std::move(memory));
    }
    begin = std::min(begin, run.aligned(file, t.begin_ns()));
    end = std::max(end, run.aligned(file, t.end_ns()));
    Json steps = Json::array();
    for (const auto& s : t.steps())
      steps.push_back({{"step", s.number},
                       {"begin_ns", run.aligned(file, s.begin_ns)},
                       {"end_ns", run.aligned(file, s.end_ns)},
                       {"id", slice_id(file, s.event)}});
    out["ranks"].push_back({{"rank", f.rank},
                            {"span", f.span},
                            {"file", file},
                            {"offset_ns", f.offset_ns},
                            {"steps", std::move(steps)},
                            {"processes", std::move(processes)}});
  }
  out["begin_ns"] = begin > end ? 0 : begin;
  out["end_ns"] = begin > end ? 0 : end;
  if (out["ranks"].empty())
    out["empty"] = "no trace of this rank could be read; see the diagnostics page";
  return out;
}

Json slice_json(const Run& run, uint64_t slice) {
  const auto& f = file_at(run, slice);
  const Trace& t = f.trace;
  const int file = static_cast<int>(slice >> 32);
  const auto e = static_cast<EventId>(slice & 0xffffffff);
  Json out = brief(run, file, e);
  out["name"] = valid_utf8(t.name(e));
  out["rank"] = f.rank;
  out["category"] = category_name(t.category(e));
  out["class"] = work_name(t.work(e));
  out["self_ns"] = self_ns(t, e);
  out["depth"] = t.depth(e);
  const auto step = step_of(t, e);
  out["step"] = step ? Json(*step) : Json(nullptr);
  out["module"] = valid_utf8(module_of(t, e));
  try {
    out["args"] = t.arguments(e);
  } catch (const std::exception& error) {
    out["args"] = Json::object();
    out["args_problem"] = error.what();
  }
  Json parents = Json::array();
  for (EventId p = t.parent(e); p != kNone && parents.size() < 256; p = t.parent(p))
    parents.push_back({{"id", slice_id(file, p)}, {"name", display_name(t.name(p))}});
  out["parents"] = std::move(parents);
  const auto children = children_of(t, e);
  Json list = Json::array();
  for (size_t i = 0; i < children.size() && i < 200; ++i)
    list.push_back(brief(run, file, children[i]));
  out["children"] = std::move(list);
  out["num_children"] = children.size();
  Json flows_in = Json::array(), flows_out = Json::array();
  for (const auto& flow : t.flows()) {
    if (flow.to == e && flows_in.size() < 100) flows_in.push_back(brief(run, file, flow.from));
    if (flow.from == e && flows_out.size() < 100) flows_out.push_back(brief(run, file, flow.to));
  }
  const Category c = t.category(e);
  const bool device = t.tracks()[t.track_of(e)].is_device();
  Json kernels = Json::array();
  if (device) {
    if (t.linked(e) != kNone) {
      out["launched_by"] = brief(run, file, t.linked(e));
      const EventId op = op_of(t, e);
      if (op != kNone) out["op"] = brief(run, file, op);
      flows_in.push_back(brief(run, file, t.linked(e)));
    }
  } else if (c == Category::kRuntime || c == Category::kDriver || c == Category::kCpuOp) {
    // Everything that was launched inside.
    const Track& track = t.tracks()[t.track_of(e)];
    for (uint32_t r = t.depth(e); r < track.num_rows && kernels.size() < 200; ++r) {
      const auto range = events_between(t, t.rows()[track.first_row + r], t.ts(e), t.end(e) + 1);
      for (EventId k = range.first; k < range.last && kernels.size() < 200; ++k)
        if (t.ts(k) >= t.ts(e) && t.end(k) <= t.end(e) && t.linked(k) != kNone)
          kernels.push_back(brief(run, file, t.linked(k)));
    }
    if (c != Category::kCpuOp && t.linked(e) != kNone)
      flows_out.push_back(brief(run, file, t.linked(e)));
  }
  out["kernels"] = std::move(kernels);
  out["flows_in"] = std::move(flows_in);
  out["flows_out"] = std::move(flows_out);
  out["previous"] = same_name_json(run, slice, false);
  out["next"] = same_name_json(run, slice, true);
  return out;
}

Json same_name_json(const Run& run, uint64_t slice, bool forward) {
  const auto& f = file_at(run, slice);
  const Trace& t = f.trace;
  const auto e = static_cast<EventId>(slice & 0xffffffff);
  EventId best = kNone;
  const auto names = t.name_column();
  const auto after = [&](EventId a, EventId b) {
    return t.ts(a) != t.ts(b) ? t.ts(a) > t.ts(b) : a > b;
  };
  for (EventId i = 0; i < names.size(); ++i) {
    if (names[i] != t.name_id(e) || i == e) continue;
    if (forward ? (after(i, e) && (best == kNone || after(best, i)))
                : (after(e, i) && (best == kNone || after(i, best))))
      best = i;
  }
  return best == kNone ? Json(nullptr) : Json(slice_id(static_cast<int>(slice >> 32), best));
}

Json range_json(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1) {
  struct Sum {
    std::string name;
    Category category = Category::kOther;
    Work work = Work::kNone;
    int64_t count = 0, total = 0, self = 0, least = INT64_MAX, most = 0;
  };
  std::map<std::pair<std::string_view, uint8_t>, Sum> sums;
  Json busy = Json::array();
  std::map<Work, std::vector<Interval>> of_work;
  for (const uint32_t id : tracks) {
    const size_t file = id >> 16, track_number = id & 0xffff;
    if (file >= run.files().size()) continue;
    const Trace& t = run.files()[file].trace;
    if (track_number >= t.tracks().size()) continue;
    const Track& track = t.tracks()[track_number];
    const int64_t from = run.unaligned(static_cast<int>(file), t0),
                  to = run.unaligned(static_cast<int>(file), t1);
    // An event's own time is what no event of a deeper row covers. In a tree that is its time less
    // its children's; where ranges cross each other it still adds up to the busy time.
    std::vector<Interval> covered;
    for (uint32_t r = track.num_rows; r-- > 0;) {
      std::vector<Interval> here;
      const auto range = events_between(t, t.rows()[track.first_row + r], from, to);
      for (EventId e = range.first; e < range.last; ++e) {
        const int64_t begin = std::max(t.ts(e), from), end = std::min(t.end(e), to);
        if (end < begin || t.category(e) == Category::kSpan) continue;
        int64_t self = 0;
        const int64_t from_here = here.empty() ? begin : std::max(begin, here.back().end);
        for (const Interval& own :
             subtract({{from_here, std::max(from_here, end)}}, covered_in(covered, from_here, end)))
          self += own.length();
        here.push_back({begin, std::max(end, from_here)});
        auto& sum = sums[{t.name(e), static_cast<uint8_t>(t.category(e))}];
        sum.category = t.category(e);
        sum.work = t.work(e);
        ++sum.count;
        sum.total += end - begin;
        sum.self += self;
        sum.least = std::min(sum.least, end - begin);
        sum.most = std::max(sum.most, end - begin);
        if (t.work(e) != Work::kNone)
          of_work[t.work(e)].push_back({run.aligned(static_cast<int>(file), begin),
                                        run.aligned(static_cast<int>(file), end)});
      }
      covered.insert(covered.end(), here.begin(), here.end());
      covered = merge(std::move(covered));
    }
    const int64_t length = union_length(covered);
    busy.push_back(
        {{"track", id},
         {"busy_ns", length},
         {"share", t1 > t0 ? static_cast<double>(length) / static_cast<double>(t1 - t0) : 0.0}});
  }
  Json rows = Json::array();
  std::vector<std::pair<std::string_view, Sum*>> order;
  for (auto& [key, sum] : sums) order.push_back({key.first, &sum});
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& p) { return p.second->self; });
  for (const auto& [name, s] : order)
    rows.push_back({{"name", display_name(name)},
                    {"category", category_name(s->category)},
                    {"class", work_name(s->work)},
                    {"count", s->count},
                    {"total_ns", s->total},
                    {"self_ns", s->self},
                    {"avg_ns", s->total / std::max<int64_t>(1, s->count)},
                    {"min_ns", s->least},
                    {"max_ns", s->most}});
  Json classes = Json::object();
  for (auto& [work, list] : of_work)
    classes[std::string(work_name(work)) + "_ns"] = union_length(merge(std::move(list)));
  return {{"t0", t0},
          {"t1", t1},
          {"rows", std::move(rows)},
          {"busy", std::move(busy)},
          {"classes", std::move(classes)}};
}

}  // namespace triptych::insight

#include "insight/join_sinks.h"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "base/error.h"

namespace triptych::insight {
namespace {

void renumber(StringId& id, const std::vector<StringId>& to) { id = to[id]; }

/// Strings of all readers in one table; rewrites the ids in `sink`'s tables (not its events).
std::vector<StringId> join_strings(StringTable& table, EventSink& sink) {
  std::vector<StringId> to(sink.strings.size());
  for (StringId id = 0; id < to.size(); ++id) to[id] = table.intern(sink.strings[id]);
  for (auto& c : sink.collectives) {
    renumber(c.name, to), renumber(c.group, to), renumber(c.group_tag, to);
    renumber(c.group_ranks, to), renumber(c.dtype, to), renumber(c.in_split, to);
  }
  for (auto& op : sink.ops)
    renumber(op.shapes, to), renumber(op.types, to), renumber(op.concrete, to);
  for (auto& m : sink.memory) renumber(m.category, to), renumber(m.module, to);
  for (auto& c : sink.counters) renumber(c.series, to);
  for (auto* list : {&sink.tracks, &sink.processes})
    for (auto& t : *list) renumber(t.name, to), renumber(t.pid_text, to), renumber(t.tid_text, to);
  sink.strings = StringTable();
  return to;
}

class Joiner {
 public:
  Joiner(Sinks& sinks, TraceImage& image) : sinks_(sinks), image_(image) {}

  JoinedSinks run() {
    join_tracks();
    join_tables();
    adapt_foreign_tracks(joined_.strings, image_.tracks, joined_.roles);
    return std::move(joined_);
  }

 private:
  /// Same thread, same track, whichever reader met it; then the order of the timeline.
  void join_tracks() {
    struct Name {
      StringId id = 0;
      int32_t sort_index = 0;
    };
    std::unordered_map<int64_t, Name> processes;
    std::unordered_map<int64_t, std::unordered_map<int64_t, uint32_t>> index;
    std::vector<RawTrack> raw;
    std::vector<std::vector<uint32_t>> to_raw(sinks_.size());
    for (size_t s = 0; s < sinks_.size(); ++s) {
      joined_.strings_of.push_back(join_strings(joined_.strings, *sinks_[s]));
      for (const auto& p : sinks_[s]->processes) {
        auto& name = processes[p.pid];
        if (p.named)
          name.id = p.name;
        else if (name.id == 0)
          name.id = p.pid_text;
        if (p.sorted) name.sort_index = p.sort_index;
      }
      for (const auto& t : sinks_[s]->tracks) {
        const auto [at, added] = index[t.pid].try_emplace(t.tid, static_cast<uint32_t>(raw.size()));
        if (added) raw.push_back(t);
        auto& joined = raw[at->second];
        if (t.named || t.name) joined.name = t.name, joined.named = joined.named || t.named;
        if (t.sorted) joined.sort_index = t.sort_index, joined.sorted = true;
        joined.device = std::max(joined.device, t.device);
        to_raw[s].push_back(at->second);
      }
    }
    for (auto& t : raw)
      if (t.name == 0) t.name = t.tid_text;
    require<DataError>(raw.size() < 0xffff, image_.source.string(), ": ", raw.size(),
                       " different threads; at most 65534 fit a timeline");
    std::vector<uint32_t> order(raw.size());
    std::iota(order.begin(), order.end(), 0u);
    std::ranges::stable_sort(order, [&](uint32_t a, uint32_t b) {
      const auto key = [&](uint32_t i) {
        const auto& t = raw[i];
        return std::tuple(t.device >= 0, processes[t.pid].sort_index, t.pid, t.sort_index, t.tid);
      };
      return key(a) < key(b);
    });
    std::vector<uint32_t> place(raw.size());
    for (uint32_t i = 0; i < order.size(); ++i) {
      const auto& t = raw[order[i]];
      place[order[i]] = i;
      Track track;
      track.pid = t.pid;
      track.tid = t.tid;
      track.name = t.name;
      const auto process = processes.find(t.pid);
      track.process =
          process != processes.end() && process->second.id ? process->second.id : t.pid_text;
      track.device = t.device;
      track.sort_index = t.sort_index;
      image_.tracks.push_back(track);
    }
    for (auto& list : to_raw) {
      for (auto& t : list) t = place[t];
      joined_.tracks_of.push_back(std::move(list));
    }
  }

  /// Small tables of all readers behind one another, with joined ids.
  void join_tables() {
    auto& image = image_;
    const auto append = [](auto& to, auto& from) {
      if (to.empty())
        to = std::move(from);
      else
        to.insert(to.end(), from.begin(), from.end());
      from = {};
    };
    for (size_t s = 0; s < sinks_.size(); ++s) {
      auto& sink = *sinks_[s];
      const auto& tracks = joined_.tracks_of[s];
      joined_.offsets.push_back({static_cast<uint32_t>(image.collectives.size()),
                                 static_cast<uint32_t>(image.kernels.size()),
                                 static_cast<uint32_t>(image.ops.size())});
      for (auto& k : sink.kernels)
        if (k.collective != kNone) k.collective += joined_.offsets.back().collectives;
      for (auto& m : sink.memory) m.track = tracks[m.track];
      for (auto& f : sink.flows) f.track = tracks[f.track];
      for (auto& c : sink.counters)
        image.counters.push_back({c.ts, c.value, tracks[c.track], c.series});
      sink.counters = {};
      append(image.collectives, sink.collectives);
      append(image.kernels, sink.kernels);
      append(image.ops, sink.ops);
      append(image.memory, sink.memory);
      append(joined_.flows, sink.flows);
      joined_.bad_events += sink.bad_events;
      joined_.untimed_events += sink.untimed_events;
    }
    std::ranges::stable_sort(image.memory, {}, &MemoryEvent::ts_ns);
    std::ranges::stable_sort(image.counters, {}, &CounterSample::ts_ns);
  }

  Sinks& sinks_;
  TraceImage& image_;
  JoinedSinks joined_;
};

}  // namespace

JoinedSinks join_sinks(Sinks& sinks, TraceImage& image) { return Joiner(sinks, image).run(); }

}  // namespace triptych::insight

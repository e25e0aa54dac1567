#include "insight/trace_builder.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <thread>

#include "base/error.h"
#include "insight/join_sinks.h"
#include "insight/trace_reader.h"
#include "insight/work_class.h"

namespace triptych::insight {
namespace {

constexpr int64_t kDay = 86400ll * 1000000000;

/// begin/end records of one track, in the order of the file, become complete events.
std::vector<RawEvent> pair_up(std::vector<RawEvent> halves, uint64_t& unpaired) {
  std::ranges::stable_sort(halves, [](const RawEvent& a, const RawEvent& b) {
    return a.track != b.track ? a.track < b.track : a.ts < b.ts;
  });
  std::vector<RawEvent> whole, open;
  const auto close_all = [&](int64_t) {
    unpaired += open.size();
    open.clear();
  };
  for (size_t i = 0; i < halves.size(); ++i) {
    if (i > 0 && halves[i].track != halves[i - 1].track) close_all(0);
    if (halves[i].phase == 'B') {
      open.push_back(halves[i]);
    } else if (open.empty()) {
      ++unpaired;
    } else {
      whole.push_back(open.back());
      whole.back().dur = halves[i].ts - open.back().ts;
      whole.back().phase = 'X';
      open.pop_back();
    }
  }
  close_all(0);
  return whole;
}

/// The days around the middle of what was recorded; nothing when there are no events.
struct Range {
  int64_t least = INT64_MIN, most = INT64_MAX;
  bool has(int64_t ts) const { return ts >= least && ts <= most; }
};
Range usual_range(Sinks& sinks) {
  std::vector<int64_t> sample;
  for (auto& sink : sinks) {
    const size_t every = std::max<size_t>(1, sink->events.size() / 4096);
    size_t i = 0;
    sink->events.for_each([&](const RawEvent& e) {
      if (i++ % every == 0 && e.category != Category::kSpan) sample.push_back(e.ts);
    });
  }
  if (sample.empty()) return {};
  std::ranges::nth_element(sample, sample.begin() + static_cast<std::ptrdiff_t>(sample.size() / 2));
  const int64_t middle = sample[sample.size() / 2];
  return {middle - 3 * kDay, middle + 3 * kDay};
}

class Builder {
 public:
  Builder(Sinks sinks, std::unique_ptr<TraceImage> image, int jobs, const std::atomic<bool>* cancel)
      : sinks_(std::move(sinks)), image_(std::move(image)), jobs_(jobs), cancel_(cancel) {}

  std::unique_ptr<TraceImage> run() {
    joined_ = join_sinks(sinks_, *image_);
    check_cancel();
    pair_halves();
    distribute();
    check_cancel();
    nest();
    check_cancel();
    back_pointers();
    set_work();
    link_launches(*image_);
    match_flows(*image_, joined_.flows);
    find_steps(*image_);
    range();
    build_levels(*image_);
    warn();
    return std::move(image_);
  }

 private:
  void check_cancel() const {
    if (cancel_ && cancel_->load(std::memory_order_relaxed)) throw Cancelled();
  }

  void renumber_event(RawEvent& e, size_t s) const {
    e.name = joined_.strings_of[s][e.name];
    e.track = joined_.tracks_of[s][e.track];
    if (e.detail == kNone) return;
    switch (e.category) {
      case Category::kCpuOp:
        e.detail += joined_.offsets[s].ops;
        break;
      case Category::kKernel:
      case Category::kMemcpy:
      case Category::kMemset:
        e.detail += joined_.offsets[s].kernels;
        break;
      default:
        e.detail += joined_.offsets[s].collectives;
    }
  }

  void pair_halves() {
    std::vector<RawEvent> halves;
    for (size_t s = 0; s < sinks_.size(); ++s)
      sinks_[s]->events.for_each([&](RawEvent& e) {
        renumber_event(e, s);
        adapt_foreign_event(joined_.strings, joined_.roles[e.track], e);
        if (e.phase != 'X') halves.push_back(e);
      });
    if (!halves.empty()) paired_ = pair_up(std::move(halves), unpaired_);
  }

  void distribute() {
    auto& image = *image_;
    const Range usual = usual_range(sinks_);
    std::vector<uint64_t> count(image.tracks.size());
    const auto keep = [&](const RawEvent& e) { return e.phase == 'X' && usual.has(e.ts); };
    const auto counter = [&](const RawEvent& e) {
      if (keep(e))
        ++count[e.track];
      else if (e.phase == 'X')
        ++outliers_;
    };
    for (auto& sink : sinks_) sink->events.for_each(counter);
    std::ranges::for_each(paired_, counter);
    const uint64_t total = std::accumulate(count.begin(), count.end(), uint64_t{0});
    require<DataError>(total < kNone, image.source.string(), ": ", total,
                       " events; at most 4294967294 fit an index");
    image.allocate_events(total);
    std::vector<uint64_t> next(count.size());
    std::exclusive_scan(count.begin(), count.end(), next.begin(), uint64_t{0});
    for (size_t t = 0; t < count.size(); ++t) {
      image.tracks[t].first_event = static_cast<EventId>(next[t]);
      image.tracks[t].num_events = static_cast<uint32_t>(count[t]);
    }
    const auto put = [&](const RawEvent& e) {
      if (!keep(e)) return;
      const uint64_t at = next[e.track]++;
      image.ts[at] = e.ts;
      // 104 days, so that sums of durations fit into 64 bits.
      constexpr int64_t kLongest = int64_t{1} << 53;
      image.dur[at] =
          std::min({e.dur, kLongest, usual.most == INT64_MAX ? e.dur : usual.most - e.ts});
      image.args_offset[at] = e.args_offset;
      image.name[at] = e.name;
      image.correlation[at] = e.correlation;
      image.external[at] = e.external;
      image.detail[at] = e.detail;
      image.category[at] = static_cast<uint8_t>(e.category);
    };
    for (auto& sink : sinks_) sink->events.consume(put);
    std::ranges::for_each(paired_, put);
    paired_ = {};
    std::erase_if(image.memory, [&](const MemoryEvent& m) { return !usual.has(m.ts_ns); });
    std::erase_if(image.counters, [&](const CounterSample& c) { return !usual.has(c.ts_ns); });
  }

  template <class T>
  static void reorder(T* column, const std::vector<uint32_t>& order) {
    const std::vector<T> before(column, column + order.size());
    for (size_t i = 0; i < order.size(); ++i) column[i] = before[order[i]];
  }

  void nest_track(const Track& track, Nesting& nesting) {
    auto& image = *image_;
    const EventId first = track.first_event;
    nesting = nest_events(image.ts.span().subspan(first, track.num_events),
                          image.dur.span().subspan(first, track.num_events));
    if (!nesting.order.empty()) {
      reorder(&image.ts[first], nesting.order);
      reorder(&image.dur[first], nesting.order);
      reorder(&image.args_offset[first], nesting.order);
      reorder(&image.name[first], nesting.order);
      reorder(&image.correlation[first], nesting.order);
      reorder(&image.external[first], nesting.order);
      reorder(&image.detail[first], nesting.order);
      reorder(&image.category[first], nesting.order);
    }
    for (uint32_t i = 0; i < track.num_events; ++i) {
      image.depth[first + i] = nesting.depth[i];
      image.parent[first + i] = nesting.parent[i] == kNone ? kNone : nesting.parent[i] + first;
    }
    nesting.order = {};
    nesting.depth = {};
    nesting.parent = {};
  }

  void nest() {
    auto& image = *image_;
    std::vector<Nesting> nestings(image.tracks.size());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t t; (t = next++) < nestings.size();)
        if (image.tracks[t].num_events > 0) nest_track(image.tracks[t], nestings[t]);
    };
    std::vector<std::jthread> threads;
    for (int i = 1; i < std::min<int>(jobs_, static_cast<int>(nestings.size())); ++i)
      threads.emplace_back(work);
    work();
    threads.clear();
    for (size_t t = 0; t < nestings.size(); ++t) {
      auto& track = image.tracks[t];
      track.first_row = static_cast<uint32_t>(image.rows.size());
      track.num_rows = static_cast<uint32_t>(nestings[t].rows.size());
      for (auto row : nestings[t].rows) {
        row.first_event += track.first_event;
        image.rows.push_back(row);
      }
    }
  }

  void back_pointers() {
    auto& image = *image_;
    for (EventId e = 0; e < image.ts.size; ++e) {
      const uint32_t at = image.detail[e];
      if (at == kNone) continue;
      switch (static_cast<Category>(image.category[e])) {
        case Category::kCpuOp:
          image.ops[at].event = e;
          break;
        case Category::kKernel:
        case Category::kMemcpy:
        case Category::kMemset:
          image.kernels[at].event = e;
          if (image.kernels[at].collective != kNone)
            image.collectives[image.kernels[at].collective].event = e;
          break;
        case Category::kCollective:
        case Category::kUserAnnotation:
          image.collectives[at].event = e;
          break;
        default:
          image.detail[e] = kNone;
      }
    }
  }

  void set_work() {
    auto& image = *image_;
    // The answer depends on name and category only; names repeat thousands of times.
    std::vector<uint8_t> known(joined_.strings.size() * 2, 0xff);
    for (EventId e = 0; e < image.ts.size; ++e) {
      const auto category = static_cast<Category>(image.category[e]);
      const bool device = category == Category::kKernel || category == Category::kMemcpy ||
                          category == Category::kMemset || category == Category::kSync;
      if (device) image.facts.has_device_work = 1;
      Work work = Work::kNone;
      if (device || category == Category::kCpuOp) {
        auto& memo = known[image.name[e] * size_t{2} + (device ? 1 : 0)];
        if (memo == 0xff) {
          const auto name = joined_.strings[image.name[e]];
          memo = static_cast<uint8_t>(device ? device_work(name) : host_work(name, category));
        }
        work = static_cast<Work>(memo);
        if (category == Category::kSync) work = Work::kSync;
      } else if (category == Category::kCollective || category == Category::kUserAnnotation) {
        work = host_work(joined_.strings[image.name[e]], category);
      }
      image.work[e] = static_cast<uint8_t>(work);
    }
    image.string_offsets.assign(joined_.strings.offsets().begin(), joined_.strings.offsets().end());
    image.string_bytes = joined_.strings.bytes();
    for (auto& c : image.collectives) fill_bytes(c);
    joined_.strings = StringTable();
  }

  /// S of section 2.3: the input, except for an all-gather, whose payload is what comes out.
  void fill_bytes(Collective& c) {
    if (c.bytes >= 0) return;
    const auto text = [&](StringId id) {
      return std::string_view(image_->string_bytes.data() + image_->string_offsets[id],
                              image_->string_offsets[id + 1] - image_->string_offsets[id]);
    };
    c.bytes = payload_bytes(text(c.name), text(c.dtype), c.in_elements, c.out_elements);
  }

  void range() {
    auto& image = *image_;
    int64_t begin = INT64_MAX, end = INT64_MIN;
    for (auto& track : image.tracks) {
      if (track.num_events == 0) continue;
      track.begin_ns = INT64_MAX, track.end_ns = INT64_MIN;
      for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
        if (image.category[e] == static_cast<uint8_t>(Category::kSpan)) continue;
        track.begin_ns = std::min(track.begin_ns, image.ts[e]);
        track.end_ns = std::max(track.end_ns, image.ts[e] + image.dur[e]);
      }
      if (track.begin_ns > track.end_ns)
        track.begin_ns = track.end_ns = image.ts[track.first_event];
      begin = std::min(begin, track.begin_ns);
      end = std::max(end, track.end_ns);
    }
    for (const auto& m : image.memory)
      begin = std::min(begin, m.ts_ns), end = std::max(end, m.ts_ns);
    for (const auto& c : image.counters)
      begin = std::min(begin, c.ts_ns), end = std::max(end, c.ts_ns);
    // The collection's own marks may begin long before; buckets count from the first event of all.
    for (EventId e = 0; e < image.ts.size; ++e) begin = std::min(begin, image.ts[e]);
    for (EventId e = 0; e < image.ts.size; ++e) end = std::max(end, image.ts[e] + image.dur[e]);
    if (begin > end) begin = end = 0;
    image.facts.begin_ns = begin;
    image.facts.end_ns = end;
    for (auto& track : image.tracks)
      if (track.num_events == 0) track.begin_ns = begin, track.end_ns = end;
  }

  void warn() {
    const auto add = [&](uint64_t count, std::string_view what) {
      if (count > 0) image_->warnings.push_back(std::to_string(count) + std::string(what));
    };
    add(joined_.bad_events, " records of unknown kind were left out");
    add(joined_.untimed_events, " records without a usable time were left out");
    add(outliers_, " events lie days away from all others and were left out");
    add(unpaired_, " begin or end records have no partner and were left out");
  }

  Sinks sinks_;
  std::unique_ptr<TraceImage> image_;
  int jobs_;
  const std::atomic<bool>* cancel_;
  JoinedSinks joined_;
  std::vector<RawEvent> paired_;
  uint64_t outliers_ = 0, unpaired_ = 0;
};

}  // namespace

std::unique_ptr<TraceImage> build_trace(std::vector<std::unique_ptr<EventSink>> sinks,
                                        std::unique_ptr<TraceImage> image, int jobs,
                                        const std::atomic<bool>* cancel) {
  return Builder(std::move(sinks), std::move(image), jobs, cancel).run();
}

}  // namespace triptych::insight

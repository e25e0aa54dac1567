#include <algorithm>
#include <charconv>
#include <map>

#include "insight/trace_builder.h"

namespace triptych::insight {
namespace {

bool is_device_work(Category c) {
  return c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset ||
         c == Category::kSync;
}
bool is_launch(Category c) { return c == Category::kRuntime || c == Category::kDriver; }

struct Key {
  uint32_t id;
  EventId event;
};

/// Events for which `wanted` holds, by `ids`, earliest first within one id.
template <class Wanted>
std::vector<Key> keys_of(const TraceImage& image, const Column<uint32_t>& ids, Wanted&& wanted) {
  std::vector<Key> keys;
  for (EventId e = 0; e < image.ts.size; ++e)
    if (ids[e] != 0 && wanted(static_cast<Category>(image.category[e])))
      keys.push_back({ids[e], e});
  std::ranges::sort(keys, [&](const Key& a, const Key& b) {
    return a.id != b.id ? a.id < b.id : image.ts[a.event] < image.ts[b.event];
  });
  return keys;
}

/// Links every key of `device` with the first of `host` that has the same id.
void join(TraceImage& image, const std::vector<Key>& device, const std::vector<Key>& host) {
  size_t h = 0;
  for (const auto& d : device) {
    while (h < host.size() && host[h].id < d.id) ++h;
    if (h == host.size()) break;
    if (host[h].id != d.id || image.linked[d.event] != kNone) continue;
    image.linked[d.event] = host[h].event;
    if (image.linked[host[h].event] == kNone) image.linked[host[h].event] = d.event;
  }
}

/// The innermost event of a track that covers `ts`; or the next to start, for arrows drawn from
/// gaps.
EventId event_at(const TraceImage& image, const Track& track, int64_t ts) {
  for (uint32_t r = track.num_rows; r-- > 0;) {
    const Row& row = image.rows[track.first_row + r];
    const auto* first = &image.ts.data[row.first_event];
    const auto* behind = std::upper_bound(first, first + row.num_events, ts);
    if (behind == first) continue;
    const auto e = static_cast<EventId>(behind - 1 - image.ts.data.get());
    if (ts <= image.ts[e] + image.dur[e]) return e;
  }
  constexpr int64_t kNear = 1000000;
  if (track.num_rows == 0) return kNone;
  const Row& row = image.rows[track.first_row];
  const auto* first = &image.ts.data[row.first_event];
  const auto* next = std::lower_bound(first, first + row.num_events, ts);
  if (next == first + row.num_events || *next - ts > kNear) return kNone;
  return static_cast<EventId>(next - image.ts.data.get());
}

}  // namespace

void link_launches(TraceImage& image) {
  std::fill_n(image.linked.data.get(), image.linked.size, kNone);
  {
    const auto device = keys_of(image, image.correlation, is_device_work);
    if (!device.empty()) join(image, device, keys_of(image, image.correlation, is_launch));
  }
  bool missing = false;
  for (EventId e = 0; e < image.ts.size && !missing; ++e)
    missing = is_device_work(static_cast<Category>(image.category[e])) &&
              image.linked[e] == kNone && image.external[e] != 0;
  if (!missing) return;  // operators name their kernels only where launches were not recorded
  const auto device = keys_of(image, image.external, is_device_work);
  join(image, device,
       keys_of(image, image.external, [](Category c) { return c == Category::kCpuOp; }));
}

void match_flows(TraceImage& image, std::vector<RawFlow>& flows) {
  std::ranges::sort(flows, [](const RawFlow& a, const RawFlow& b) {
    if (a.id != b.id) return a.id < b.id;
    return a.ts != b.ts ? a.ts < b.ts : a.start > b.start;
  });
  const RawFlow* start = nullptr;
  for (const auto& flow : flows) {
    if (start && start->id != flow.id) start = nullptr;
    if (flow.start) {
      start = &flow;
    } else if (start) {  // an end without a start is dropped
      const EventId from = event_at(image, image.tracks[start->track], start->ts);
      const EventId to = event_at(image, image.tracks[flow.track], flow.ts);
      if (from != kNone && to != kNone && from != to) image.flows.push_back({from, to});
    }
  }
  std::ranges::sort(image.flows, {}, &Flow::from);
  flows.clear();
  flows.shrink_to_fit();
}

void find_steps(TraceImage& image) {
  constexpr std::string_view kPrefix = "ProfilerStep#";
  std::vector<int64_t> number_of(image.string_offsets.size() - 1, -1);
  bool any = false;
  for (size_t id = 0; id < number_of.size(); ++id) {
    const std::string_view text(image.string_bytes.data() + image.string_offsets[id],
                                image.string_offsets[id + 1] - image.string_offsets[id]);
    if (!text.starts_with(kPrefix)) continue;
    int64_t number = 0;
    const auto [behind, error] =
        std::from_chars(text.data() + kPrefix.size(), text.data() + text.size(), number);
    if (error != std::errc() || number < 0) continue;
    number_of[id] = number;
    any = true;
  }
  if (!any) return;
  std::map<int64_t, Step> steps;  // on the host; the longest where a number occurs twice
  for (uint32_t t = 0; t < image.tracks.size(); ++t) {
    const Track& track = image.tracks[t];
    if (track.is_device()) continue;
    for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
      const int64_t number = number_of[image.name[e]];
      if (number < 0 || image.category[e] == static_cast<uint8_t>(Category::kGpuUserAnnotation))
        continue;
      auto& step = steps[number];
      if (step.duration_ns() == 0 || image.dur[e] > step.duration_ns())
        step = {number, image.ts[e], image.ts[e] + image.dur[e], e, t};
    }
  }
  for (const auto& [number, step] : steps) image.steps.push_back(step);
}

}  // namespace triptych::insight

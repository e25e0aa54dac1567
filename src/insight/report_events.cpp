#include "insight/report_events.h"

#include <algorithm>

#include "insight/timeline.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {
namespace {

constexpr int64_t kMostOfOneRank = 4000000;
constexpr size_t kShownName = 256, kLongestName = 4096;  // as search looks at them

void put(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>((value & 127) | 128);
  out += static_cast<char>(value);
}
void put_signed(std::string& out, int64_t value) {
  put(out, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

void put_arrows(std::string& out, std::span<const Flow> arrows) {
  put(out, arrows.size());
  for (const Flow& arrow : arrows) {
    put(out, arrow.from);
    put_signed(out, static_cast<int64_t>(arrow.to) - static_cast<int64_t>(arrow.from));
  }
}

}  // namespace

std::vector<int> files_to_hold(const Run& run, int64_t most, std::optional<int64_t> full_rank,
                               const std::vector<int64_t>& first) {
  const std::vector<int> files = run.files_of_span();
  const auto events = [&](int file) {
    return static_cast<int64_t>(run.files()[static_cast<size_t>(file)].trace.num_events());
  };
  std::vector<int> order;
  const auto want = [&](int64_t rank) {
    for (const int file : files)
      if (run.files()[static_cast<size_t>(file)].rank == rank &&
          std::ranges::find(order, file) == order.end())
        order.push_back(file);
  };
  for (const int64_t rank : first) want(rank);
  for (const int file : files)
    if (std::ranges::find(order, file) == order.end()) order.push_back(file);
  std::vector<int> held;
  int64_t sum = 0;
  for (const int file : order) {
    const int64_t here = events(file);
    const bool asked = full_rank && run.files()[static_cast<size_t>(file)].rank == *full_rank;
    if (here == 0 || here > kMostOfOneRank) continue;
    if (!asked && sum + here > most) continue;
    if (!asked) sum += here;
    held.push_back(file);
  }
  std::ranges::sort(held);
  return held;
}

Json held_events(const Run& run, int file) {
  const auto& f = run.files()[static_cast<size_t>(file)];
  const Trace& t = f.trace;
  Json tracks = Json::array(), steps = Json::array(), names = Json::object();
  for (uint32_t k = 0; k < t.tracks().size(); ++k) {
    const Track& track = t.tracks()[k];
    Json rows = Json::array();
    for (uint32_t r = 0; r < track.num_rows; ++r)
      rows.push_back(t.rows()[track.first_row + r].num_events);
    tracks.push_back(
        {{"id", track_id(file, k)}, {"device", track.is_device()}, {"rows", std::move(rows)}});
  }
  for (const Step& s : t.steps())
    steps.push_back({s.number, run.aligned(file, s.begin_ns), run.aligned(file, s.end_ns)});
  for (StringId id = 0; id < t.num_strings(); ++id)
    if (t.string(id).size() > kShownName)
      names[std::to_string(id)] = valid_utf8(t.string(id).substr(0, kLongestName));
  return {{"file", file},
          {"rank", f.rank},
          {"events", t.num_events()},
          {"tracks", std::move(tracks)},
          {"steps", std::move(steps)},
          {"long_names", std::move(names)}};
}

std::string held_columns(const Run& run, int file) {
  const Trace& t = run.files()[static_cast<size_t>(file)].trace;
  std::string out;
  out.reserve(t.num_events() * 12);
  put(out, t.num_events());
  for (const Row& row : t.rows()) {
    int64_t before = 0;
    for (EventId e = row.first_event; e < row.first_event + row.num_events; ++e) {
      if (e == row.first_event)
        put_signed(out, run.aligned(file, t.ts(e)));
      else
        put(out, static_cast<uint64_t>(t.ts(e) - before));
      before = t.ts(e);
    }
  }
  const auto count = static_cast<EventId>(t.num_events());
  for (EventId e = 0; e < count; ++e) put(out, static_cast<uint64_t>(t.dur(e)));
  for (EventId e = 0; e < count; ++e) put(out, t.name_id(e));
  for (EventId e = 0; e < count; ++e) put(out, t.parent(e) == kNone ? 0 : e - t.parent(e));
  for (EventId e = 0; e < count; ++e) put(out, static_cast<uint64_t>(t.category(e)));
  for (EventId e = 0; e < count; ++e) put(out, static_cast<uint64_t>(t.work(e)));
  std::vector<Flow> links;
  for (const Track& track : t.tracks()) {
    if (!track.is_device()) continue;
    for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e)
      if (t.linked(e) != kNone) links.push_back({t.linked(e), e});
  }
  put_arrows(out, t.flows());
  put_arrows(out, links);
  return out;
}

}  // namespace triptych::insight

#include <algorithm>
#include <cstring>

#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

constexpr uint32_t kMagic = 0x454C4954;  // "TILE"
constexpr int64_t kBuckets = 512;
constexpr size_t kMostBlocks = 65536;

/// What one row shows of one tile.
struct Slices {
  std::vector<double> start, dur;
  std::vector<uint32_t> name, event, count;
  std::vector<float> covered;

  void add(double s, double d, uint32_t n, uint32_t e, uint32_t c, float share) {
    start.push_back(s), dur.push_back(d), name.push_back(n), event.push_back(e);
    count.push_back(c), covered.push_back(share);
  }
};

class Writer {
 public:
  void u32(uint32_t v) { raw(&v, 4); }
  template <class T>
  void column(const std::vector<T>& values) {
    if (!values.empty()) raw(values.data(), values.size() * sizeof(T));
  }
  void align8() {
    if (out_.size() % 8) u32(0);
  }
  void set_u32(size_t at, uint32_t v) { std::memcpy(out_.data() + at, &v, 4); }
  size_t size() const { return out_.size(); }
  std::string take() { return std::move(out_); }

 private:
  void raw(const void* p, size_t n) { out_.append(static_cast<const char*>(p), n); }
  std::string out_;
};

/// Events of [t0, t1) one by one where they are wide, and together where several share a bucket.
void from_events(const Trace& t, const Row& row, int64_t t0, int64_t t1, int64_t bucket,
                 Slices& out) {
  const auto range = events_between(t, row, t0, t1);
  int64_t current = -1;  // bucket that the last entry stands for
  int64_t covered = 0, longest = -1;
  for (EventId e = range.first; e < range.last; ++e) {
    if (t.end(e) <= t0 && !(t.dur(e) == 0 && t.ts(e) >= t0)) continue;
    const int64_t index = (std::max(t.ts(e), t0) - t0) / bucket;
    const auto start = static_cast<double>(t.ts(e) - t0);
    if (t.dur(e) < bucket && index == current) {
      covered += t.dur(e);
      ++out.count.back();
      if (t.dur(e) > longest) {
        longest = t.dur(e);
        out.name.back() = t.name_id(e);
        out.event.back() = e;
      }
      out.dur.back() = static_cast<double>(t.end(e) - t0) - out.start.back();
      out.covered.back() =
          out.dur.back() > 0
              ? std::min(1.0F, static_cast<float>(static_cast<double>(covered) / out.dur.back()))
              : 1.0F;
    } else {
      out.add(start, static_cast<double>(t.dur(e)), t.name_id(e), e, 1, 1);
      current = t.dur(e) < bucket ? index : -1;
      covered = longest = t.dur(e);
    }
  }
}

/// From the coarsest stored level that is no coarser than the buckets asked for.
void from_level(const Trace& t, const Level& level, int64_t t0, int64_t t1, int64_t bucket,
                Slices& out) {
  const auto buckets = t.buckets().subspan(level.first_bucket, level.num_buckets);
  const int64_t size = int64_t{1} << level.shift, origin = t.begin_ns();
  const int64_t first = std::max<int64_t>(0, (t0 - origin) >> level.shift);
  const auto at = std::ranges::lower_bound(
      buckets, static_cast<uint32_t>(std::min<int64_t>(first, UINT32_MAX)), {}, &Bucket::index);
  int64_t current = INT64_MIN;
  double covered = 0, longest = -1;
  EventId last_wide = kNone;
  for (auto b = at; b != buckets.end(); ++b) {
    const int64_t begin = origin + static_cast<int64_t>(b->index) * size;
    if (begin >= t1) break;
    // A single event keeps its own times; it may reach over many buckets: draw it once.
    const int64_t index = (begin - t0) >= 0 ? (begin - t0) / bucket : -1;
    const bool wide = t.dur(b->longest) >= bucket;
    if (wide) {
      const bool starts_here = t.ts(b->longest) >= begin;
      const uint32_t others = b->events - (starts_here && b->events > 0 ? 1 : 0);
      const auto add_wide = [&] {
        if (last_wide == b->longest) return;
        out.add(static_cast<double>(t.ts(b->longest) - t0), static_cast<double>(t.dur(b->longest)),
                t.name_id(b->longest), b->longest, 1, 1);
        last_wide = b->longest;
      };
      if (!starts_here) add_wide();
      // What shares the bucket with it is narrower than a bucket.
      if (others > 0)
        out.add(static_cast<double>(begin - t0), static_cast<double>(size), t.name_id(b->longest),
                b->longest, std::max(others, 2u), 0);
      add_wide();
      current = INT64_MIN;
      continue;
    }
    const double part = b->covered * static_cast<double>(size);
    if (index == current) {
      out.count.back() += b->events;
      covered += part;
      if (part > longest) {
        longest = part;
        out.name.back() = t.name_id(b->longest);
        out.event.back() = b->longest;
      }
      out.dur.back() = static_cast<double>(begin + size - t0) - out.start.back();
      out.covered.back() = std::min(1.0F, static_cast<float>(covered / out.dur.back()));
    } else {
      const uint32_t count = std::max(b->events, 1u);
      if (count == 1) {
        out.add(static_cast<double>(t.ts(b->longest) - t0), static_cast<double>(t.dur(b->longest)),
                t.name_id(b->longest), b->longest, 1, 1);
      } else {
        out.add(static_cast<double>(begin - t0), static_cast<double>(size), t.name_id(b->longest),
                b->longest, count, b->covered);
      }
      current = index;
      covered = longest = part;
    }
  }
}

struct Place {
  int file = 0;
  const Trace* trace = nullptr;
  const Track* track = nullptr;
};

std::optional<Place> place_of(const Run& run, uint32_t id) {
  const size_t file = id >> 16, track = id & 0xffff;
  if (file >= run.files().size()) return std::nullopt;
  const auto& trace = run.files()[file].trace;
  if (track >= trace.tracks().size()) return std::nullopt;
  return Place{static_cast<int>(file), &trace, &trace.tracks()[track]};
}

void write_rows(Writer& out, const std::vector<std::pair<uint32_t, Slices>>& rows) {
  out.u32(static_cast<uint32_t>(rows.size()));
  for (const auto& [depth, s] : rows) {
    out.u32(depth);
    out.u32(static_cast<uint32_t>(s.start.size()));
    out.align8();
    out.column(s.start), out.column(s.dur), out.column(s.name), out.column(s.event);
    out.column(s.count), out.column(s.covered);
  }
}

}  // namespace

std::string tiles_binary(const Run& run, const TileRequest& request) {
  Writer out;
  out.u32(kMagic);
  const size_t count_at = out.size();
  out.u32(0);
  uint32_t blocks = 0;
  const uint32_t level = std::clamp<uint32_t>(request.level, 0, 48);
  const int64_t bucket = int64_t{1} << level;
  for (const uint32_t id : request.tracks) {
    const auto place = place_of(run, id);
    if (!place) continue;
    for (const int64_t tile : request.tiles) {
      if (tile < -(int64_t{1} << 50 >> level) || tile > (int64_t{1} << 50 >> level) ||
          blocks >= kMostBlocks)
        continue;
      const int64_t t0 = run.unaligned(place->file, tile * kBuckets * bucket);
      const int64_t t1 = t0 + kBuckets * bucket;
      std::vector<std::pair<uint32_t, Slices>> rows;
      for (uint32_t r = 0; r < place->track->num_rows; ++r) {
        const Row& row = place->trace->rows()[place->track->first_row + r];
        Slices slices;
        const Level* best = nullptr;
        for (uint32_t l = 0; l < row.num_levels; ++l) {
          const Level& stored = place->trace->levels()[row.first_level + l];
          if (stored.shift <= level) best = &stored;
        }
        if (best)
          from_level(*place->trace, *best, t0, t1, bucket, slices);
        else
          from_events(*place->trace, row, t0, t1, bucket, slices);
        if (!slices.start.empty()) rows.emplace_back(r, std::move(slices));
      }
      out.u32(id);
      out.u32(static_cast<uint32_t>(static_cast<uint64_t>(tile)));
      out.u32(static_cast<uint32_t>(static_cast<uint64_t>(tile) >> 32));
      write_rows(out, rows);
      ++blocks;
    }
  }
  out.set_u32(count_at, blocks);
  return out.take();
}

std::string slices_binary(const Run& run, uint32_t id, int64_t t0, int64_t t1, uint32_t limit) {
  Writer out;
  out.u32(kMagic);
  const auto place = place_of(run, id);
  out.u32(place ? 1 : 0);
  if (!place) return out.take();
  const Trace& t = *place->trace;
  const int64_t from = run.unaligned(place->file, t0), to = run.unaligned(place->file, t1);
  std::vector<EventId> events;
  for (uint32_t r = 0; r < place->track->num_rows; ++r) {
    const auto range = events_between(t, t.rows()[place->track->first_row + r], from, to);
    for (EventId e = range.first; e < range.last; ++e)
      if (t.end(e) > from || (t.dur(e) == 0 && t.ts(e) >= from)) events.push_back(e);
  }
  if (events.size() > limit) {
    std::ranges::nth_element(events, events.begin() + limit, std::ranges::greater(),
                             [&](EventId e) { return t.dur(e); });
    events.resize(limit);
  }
  std::ranges::sort(events);
  std::vector<std::pair<uint32_t, Slices>> rows;
  for (const EventId e : events) {
    if (rows.empty() || rows.back().first != t.depth(e)) rows.push_back({t.depth(e), {}});
    rows.back().second.add(static_cast<double>(t.ts(e) - from), static_cast<double>(t.dur(e)),
                           t.name_id(e), e, 1, 1);
  }
  out.u32(id);
  out.u32(0);
  out.u32(0);
  write_rows(out, rows);
  return out.take();
}

Json strings_json(const Run& run, int file, uint32_t from, uint32_t limit) {
  Json out{{"file", file}, {"from", from}, {"strings", Json::array()}};
  if (file < 0 || static_cast<size_t>(file) >= run.files().size()) return out;
  const auto& t = run.files()[static_cast<size_t>(file)].trace;
  for (size_t id = from; id < t.num_strings() && id < static_cast<size_t>(from) + limit; ++id)
    out["strings"].push_back(display_name(t.string(static_cast<StringId>(id))));
  out["total"] = t.num_strings();
  return out;
}

}  // namespace triptych::insight

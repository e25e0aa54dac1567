#include <algorithm>
#include <numeric>

#include "insight/trace_builder.h"

namespace triptych::insight {
namespace {

constexpr int64_t kRounding = 1000;  // ns that a child may stick out of its parent
constexpr size_t kMostRows = 512;    // beyond this a hostile file costs nesting time without bound

struct Open {
  int64_t end = 0;
  uint32_t event = 0;  ///< position by time
  uint16_t depth = 0;
};

/// Where one event goes: its row, and the open event that contains it.
struct Place {
  uint16_t depth = 0;
  uint32_t parent = kNone;
  int64_t end = 0;  ///< for the row, clamped to the parent's
};

class Nester {
 public:
  Place place(uint32_t event, int64_t ts, int64_t end) {
    while (!open_.empty() && over(open_.back(), ts, end)) open_.pop_back();
    size_t container = open_.size();
    while (container > 0 && !contains(open_[container - 1], ts, end)) --container;
    Place out;
    size_t depth = 0;
    out.end = end;
    if (container > 0) {
      const Open& parent = open_[container - 1];
      out.parent = parent.event;
      out.end = std::min(end, parent.end);
      depth = size_t{parent.depth} + 1;
    }
    while (depth + 1 < kMostRows && depth < row_end_.size() && row_end_[depth] > ts + kRounding - 1)
      ++depth;
    depth = std::min(depth, kMostRows - 1);
    if (depth >= row_end_.size()) row_end_.resize(depth + 1, INT64_MIN);
    row_end_[depth] = std::max(row_end_[depth], out.end);
    out.depth = static_cast<uint16_t>(depth);
    if (depth + 1 < kMostRows) open_.push_back({out.end, event, out.depth});
    if (open_.size() > 2 * kMostRows) open_.erase(open_.begin(), open_.begin() + kMostRows);
    return out;
  }

 private:
  /// Over before (ts, end), counting an overlap that only rounding made as none.
  static bool over(const Open& o, int64_t ts, int64_t end) {
    if (o.end <= ts) return !(o.end == ts && end == ts);
    return end > o.end && o.end - ts < kRounding && o.end - ts <= end - o.end;
  }
  static bool contains(const Open& o, int64_t ts, int64_t end) {
    return o.end >= ts && (o.end > ts || end == ts) && end - o.end < kRounding;
  }

  std::vector<Open> open_;
  std::vector<int64_t> row_end_;
};

}  // namespace

Nesting nest_events(std::span<const int64_t> ts, std::span<const int64_t> dur) {
  const auto n = static_cast<uint32_t>(ts.size());
  Nesting out;
  const auto before = [&](uint32_t a, uint32_t b) {
    return ts[a] != ts[b] ? ts[a] < ts[b] : dur[a] > dur[b];
  };
  bool sorted = true;
  for (uint32_t i = 1; i < n && sorted; ++i) sorted = !before(i, i - 1);
  std::vector<uint32_t> by_time;
  if (!sorted) {
    struct Key {
      int64_t ts, dur;
      uint32_t at;
    };
    std::vector<Key> keys(n);
    for (uint32_t i = 0; i < n; ++i) keys[i] = {ts[i], dur[i], i};
    std::ranges::sort(keys, [](const Key& a, const Key& b) {
      if (a.ts != b.ts) return a.ts < b.ts;
      return a.dur != b.dur ? a.dur > b.dur : a.at < b.at;
    });
    by_time.resize(n);
    for (uint32_t i = 0; i < n; ++i) by_time[i] = keys[i].at;
  }
  const auto nth = [&](uint32_t i) { return sorted ? i : by_time[i]; };

  std::vector<uint16_t> depth(n);
  std::vector<uint32_t> parent(n);
  std::vector<uint32_t> counts;
  Nester nester;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t e = nth(i);
    const Place place = nester.place(i, ts[e], ts[e] + dur[e]);
    depth[i] = place.depth;
    parent[i] = place.parent;
    if (place.depth >= counts.size()) counts.resize(place.depth + 1u);
    ++counts[place.depth];
  }
  // A row may stay empty when overlapping events pushed later ones deeper: never, rows fill from
  // the first; so counts are all positive.
  std::vector<uint32_t> next(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), next.begin(), 0u);
  for (size_t d = 0; d < counts.size(); ++d) out.rows.push_back({next[d], counts[d], 0, 0});
  if (sorted && counts.size() <= 1) {
    out.depth = std::move(depth);
    out.parent = std::move(parent);
    return out;
  }
  std::vector<uint32_t> position(n);  // by time -> final
  for (uint32_t i = 0; i < n; ++i) position[i] = next[depth[i]]++;
  out.order.resize(n);
  out.depth.resize(n);
  out.parent.resize(n);
  for (uint32_t i = 0; i < n; ++i) {
    out.order[position[i]] = nth(i);
    out.depth[position[i]] = depth[i];
    out.parent[position[i]] = parent[i] == kNone ? kNone : position[parent[i]];
  }
  return out;
}

}  // namespace triptych::insight

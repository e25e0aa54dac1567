#include "insight/intervals.h"

#include <algorithm>

namespace triptych::insight {

std::vector<Interval> merge(std::vector<Interval> intervals) {
  std::ranges::sort(intervals, {}, &Interval::begin);
  std::vector<Interval> out;
  for (const auto& i : intervals) {
    if (i.end <= i.begin) continue;
    if (out.empty() || i.begin > out.back().end)
      out.push_back(i);
    else
      out.back().end = std::max(out.back().end, i.end);
  }
  return out;
}

int64_t union_length(const std::vector<Interval>& merged) {
  int64_t sum = 0;
  for (const auto& i : merged) sum += i.length();
  return sum;
}

std::vector<Interval> intersect(const std::vector<Interval>& a, const std::vector<Interval>& b) {
  std::vector<Interval> out;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const int64_t begin = std::max(a[i].begin, b[j].begin), end = std::min(a[i].end, b[j].end);
    if (begin < end) out.push_back({begin, end});
    if (a[i].end < b[j].end)
      ++i;
    else
      ++j;
  }
  return out;
}

std::vector<Interval> subtract(const std::vector<Interval>& a, const std::vector<Interval>& b) {
  std::vector<Interval> out;
  size_t j = 0;
  for (const auto& i : a) {
    int64_t at = i.begin;
    while (j < b.size() && b[j].end <= at) ++j;
    for (size_t k = j; k < b.size() && b[k].begin < i.end; ++k) {
      if (b[k].begin > at) out.push_back({at, b[k].begin});
      at = std::max(at, b[k].end);
    }
    if (at < i.end) out.push_back({at, i.end});
  }
  return out;
}

std::vector<Interval> clip(const std::vector<Interval>& merged, int64_t begin, int64_t end) {
  std::vector<Interval> out;
  auto at = std::ranges::upper_bound(merged, begin, {}, &Interval::end);
  for (; at != merged.end() && at->begin < end; ++at)
    out.push_back({std::max(at->begin, begin), std::min(at->end, end)});
  return out;
}

}  // namespace triptych::insight

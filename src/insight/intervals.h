#pragma once

#include <cstdint>
#include <vector>

namespace triptych::insight {

/// Half-open [begin, end) in ns.
struct Interval {
  int64_t begin = 0, end = 0;
  int64_t length() const { return end - begin; }
  bool operator==(const Interval&) const = default;
};

/// The union as disjoint intervals in order; touching ones become one. Empty ones vanish.
std::vector<Interval> merge(std::vector<Interval> intervals);

// All of these take and give merged lists.
int64_t union_length(const std::vector<Interval>& merged);
std::vector<Interval> intersect(const std::vector<Interval>& a, const std::vector<Interval>& b);
std::vector<Interval> subtract(const std::vector<Interval>& a, const std::vector<Interval>& b);
std::vector<Interval> clip(const std::vector<Interval>& merged, int64_t begin, int64_t end);

}  // namespace triptych::insight

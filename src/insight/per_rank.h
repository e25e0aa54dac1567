#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "insight/statistics.h"
#include "insight/step_times.h"

namespace triptych::insight {

/// The steps of each rank, and medians over them of one of their sums.
class PerRank {
 public:
  explicit PerRank(const std::vector<StepTimes>& steps) {
    for (const auto& s : steps) by_rank_[s.rank].push_back(&s);
  }
  template <class Member>
  double median_of(int64_t rank, Member member) const {
    std::vector<double> values;
    for (const auto* s : at(rank)) values.push_back(static_cast<double>(s->*member));
    return median(std::move(values));
  }
  const std::vector<const StepTimes*>& at(int64_t rank) const {
    static const std::vector<const StepTimes*> kEmpty;
    const auto found = by_rank_.find(rank);
    return found == by_rank_.end() ? kEmpty : found->second;
  }
  std::vector<int64_t> ranks() const {
    std::vector<int64_t> out;
    for (const auto& [rank, list] : by_rank_) out.push_back(rank);
    return out;
  }

 private:
  std::map<int64_t, std::vector<const StepTimes*>> by_rank_;
};

}  // namespace triptych::insight

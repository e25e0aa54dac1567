#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "insight/intervals.h"
#include "insight/trace.h"

namespace triptych::insight::hta {

/// How HTA sorts kernels.
enum class Kind { kCommunication, kMemory, kComputation, kOther };
constexpr const char* kKindNames[] = {"COMMUNICATION", "MEMORY", "COMPUTATION", "OTHER"};
Kind kind_of(std::string_view name);  ///< by the three patterns of HTA, in its order

/// One event in HTA's table: times in us, or in thousandths of one where rounding is off. Whole
/// numbers, so that sums are exact.
struct Item {
  EventId event = 0;
  int64_t ts = 0, dur = 0;
  int64_t end() const { return ts + dur; }
  Interval interval() const { return {ts, end()}; }
};

/// HTA's union: groups of events, the next of which begins when one begins after all before it have
/// ended. An event of less than a us is one of -1 us after rounding, and counts as that.
std::vector<Interval> group_intervals(std::vector<Interval> intervals);
int64_t sum_of_lengths(const std::vector<Interval>& groups);

/// The events of one rank as HTA keeps them after loading: rounded to whole us unless
/// HTA_DISABLE_NS_ROUNDING=1, without the last step.
class RankTable {
 public:
  explicit RankTable(const Trace& t);

  double us(int64_t ticks) const {
    return exact_ ? static_cast<double>(ticks) / 1000 : static_cast<double>(ticks);
  }
  const std::vector<Item>& device() const { return device_; }
  const std::vector<Item>& host() const { return host_; }
  const Trace& trace() const { return t_; }
  int64_t threshold(int64_t us) const { return exact_ ? us * 1000 : us; }
  Item item(EventId e) const;
  std::vector<Interval> of_kind(Kind kind) const;  ///< HTA's union of the device's events of it

 private:
  bool is_device(EventId e) const;
  void select();

  const Trace& t_;
  bool rounded_ = false, exact_ = false;
  std::vector<Item> device_, host_;
};

}  // namespace triptych::insight::hta

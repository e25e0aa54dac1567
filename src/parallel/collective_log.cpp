#include "parallel/collective_log.h"

#include <algorithm>

#include "base/clock.h"
#include "base/format.h"

namespace triptych {

double sent_bytes(const std::string& operation, const Traffic& traffic) {
  const auto n = static_cast<double>(traffic.ranks), bytes = static_cast<double>(traffic.bytes);
  if (operation == "all_reduce") return 2 * bytes * (n - 1) / n;
  if (operation == "all_gather" || operation == "reduce_scatter") return bytes * (n - 1) / n;
  return operation == "receive" ? 0 : bytes;
}

void CollectiveLog::count(const std::string& group, std::span<const int64_t> members,
                          std::string_view operation, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  auto& entry = traffic_[{group, std::string(operation)}];
  entry.ranks = static_cast<int64_t>(members.size());
  entry.first = members.front();
  entry.last = members.back();
  ++entry.calls;
  entry.bytes += bytes;
}

TrafficTable CollectiveLog::traffic() const {
  const std::lock_guard lock(mutex_);
  return traffic_;
}

void CollectiveLog::clear_traffic() {
  const std::lock_guard lock(mutex_);
  traffic_.clear();
}

int64_t CollectiveLog::begin(std::string text) {
  const std::lock_guard lock(mutex_);
  records_.push_back({next_, std::move(text), steady_seconds(), 0});
  // open ones stay however many there are: they are what the watchdog looks for
  while (records_.size() > kKept && records_.front().ended > 0) records_.pop_front();
  return next_++;
}

void CollectiveLog::end(int64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(records_.begin(), records_.end(),
                               [id](const Record& record) { return record.id == id; });
  if (it == records_.end()) return;
  it->ended = steady_seconds();
  last_ended_ = *it;
}

std::optional<CollectiveLog::Record> CollectiveLog::oldest_open() const {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(records_.begin(), records_.end(),
                               [](const Record& record) { return record.ended == 0; });
  return it == records_.end() ? std::nullopt : std::optional(*it);
}

std::optional<CollectiveLog::Record> CollectiveLog::last_ended() const {
  const std::lock_guard lock(mutex_);
  return last_ended_.id == 0 ? std::nullopt : std::optional(last_ended_);
}

std::string CollectiveLog::recent(size_t count) const {
  const std::lock_guard lock(mutex_);
  std::string text;
  const size_t first = records_.size() > count ? records_.size() - count : 0;
  for (size_t i = first; i < records_.size(); ++i) {
    const auto& record = records_[i];
    text += fmt::format("\n  {} ({})", record.text,
                        record.ended > 0 ? fmt::format("{:.3f} s", record.ended - record.started)
                                         : std::string("open"));
  }
  return text;
}

}  // namespace triptych

#include "parallel/collective_log.h"

#include <algorithm>

#include "base/clock.h"
#include "base/format.h"

namespace triptych {

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

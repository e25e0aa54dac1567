#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace triptych {

/// What this process has exchanged in one kind of collective over one group.
struct Traffic {
  int64_t ranks = 0;            ///< of the group
  int64_t first = 0, last = 0;  ///< global ranks: lowest and highest of it
  int64_t calls = 0;
  /// Of the whole tensors: an all-reduce's, an all-gather's output, a reduce-scatter's input, what
  /// an all-to-all or a message sends to others or receives.
  int64_t bytes = 0;
  friend bool operator==(const Traffic&, const Traffic&) = default;
};
/// By name of the group and operation.
using TrafficTable = std::map<std::pair<std::string, std::string>, Traffic>;

/// Bytes that one rank sends for it where the group does as well as it can: in a ring, of (n - 1)/n
/// of the tensor, an all-reduce twice.
double sent_bytes(const std::string& operation, const Traffic& traffic);

/// The collectives that this process launched last, for messages and for the watchdog. All
/// functions may be called from any thread.
class CollectiveLog {
 public:
  struct Record {
    int64_t id = 0;
    std::string text;               ///< "all_reduce #5 of data {0,1} [1000] Float 'bucket 3'"
    double started = 0, ended = 0;  ///< steady seconds; ended 0: still open
  };

  int64_t begin(std::string text);
  void end(int64_t id);

  /// The one that has been open longest.
  std::optional<Record> oldest_open() const;
  /// The one that ended last.
  std::optional<Record> last_ended() const;
  /// One line each, oldest first.
  std::string recent(size_t count = kKept) const;

  /// Adds to the table.
  void count(const std::string& group, std::span<const int64_t> members, std::string_view operation,
             int64_t bytes);
  /// Everything since the start or the last clear_traffic.
  TrafficTable traffic() const;
  void clear_traffic();

  static constexpr size_t kKept = 32;

 private:
  mutable std::mutex mutex_;
  std::deque<Record> records_;
  Record last_ended_;
  int64_t next_ = 1;
  TrafficTable traffic_;
};

}  // namespace triptych

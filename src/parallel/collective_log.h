#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

namespace triptych {

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

  static constexpr size_t kKept = 32;

 private:
  mutable std::mutex mutex_;
  std::deque<Record> records_;
  Record last_ended_;
  int64_t next_ = 1;
};

}  // namespace triptych

#pragma once

#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/json.h"
#include "profile/watch_log.h"
#include "train/dynamic_profile.h"

namespace triptych {

/// Watches profiler_config.json from a thread of its own; on rank 0 alone. The file that is there
/// at the start asks for nothing. A file that cannot be read is reported and passed over.
class ConfigWatch {
 public:
  /// Writes the file with the run's settings where there is none.
  /// @throws Error when the folder cannot be made.
  /// @param log  of the monitor; null: none.
  ConfigWatch(std::filesystem::path folder, const ProfileOptions& options, double poll_s = 0.5,
              std::unique_ptr<WatchLog> log = nullptr);
  ~ConfigWatch();
  ConfigWatch(const ConfigWatch&) = delete;
  ConfigWatch& operator=(const ConfigWatch&) = delete;

  /// How many requests have come; rises.
  int64_t count() const { return count_.load(std::memory_order_relaxed); }
  /// How often it has looked at the file; rises. What was written before a look began has been
  /// counted or passed over when that look ends.
  int64_t looks() const { return looks_.load(); }
  /// The text of the newest one.
  std::string newest() const;

 private:
  /// What tells one state of the file from another: also two edits within one tick of the clock,
  /// and editors that put another file in its place.
  struct Stamp {
    int64_t seconds = 0, nanoseconds = 0, size = -1;
    ino_t inode = 0;
    bool operator==(const Stamp&) const = default;
  };
  Stamp stamp() const;
  void run();
  void look();

  std::filesystem::path file_;
  ProfileOptions options_;
  double poll_s_;
  std::unique_ptr<WatchLog> log_;
  Stamp seen_;
  std::atomic<int64_t> count_{0}, looks_{0};
  std::thread thread_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::string newest_;
  bool stopping_ = false;
};

}  // namespace triptych

#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string_view>

namespace triptych {

/// A log file beside the watched file of dynamic collection, as torch_npu keeps them: what was
/// asked for, and what became of it. Once it has its limit it becomes `<file>.1`, in place of the
/// one before, and a new one begins. May be called from any thread; a line that cannot be written
/// is left out.
class WatchLog {
 public:
  /// The folder is made with the first line.
  explicit WatchLog(std::filesystem::path file, int64_t limit_bytes = int64_t{200} << 10);

  /// One line, with UTC time in front.
  void write(std::string_view words) noexcept;

 private:
  std::filesystem::path file_;
  int64_t limit_bytes_;
  std::mutex mutex_;
};

/// `log/dp_<host>_<pid>_rank_<rank>.log` below the watched folder; rank -1: of its monitor,
/// `log/dp_<host>_<pid>_monitor.log`.
std::filesystem::path watch_log_path(const std::filesystem::path& folder, std::string_view host,
                                     int64_t pid, int64_t rank);

}  // namespace triptych

#include "profile/watch_log.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <exception>
#include <fstream>
#include <string>
#include <system_error>
#include <utility>

#include "base/files.h"
#include "base/format.h"

namespace triptych {

WatchLog::WatchLog(std::filesystem::path file, int64_t limit_bytes)
    : file_(std::move(file)), limit_bytes_(limit_bytes) {}

void WatchLog::write(std::string_view words) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    std::array<char, 32> time{};
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::strftime(time.data(), time.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    auto line = fmt::format("{} {}", time.data(), words);
    std::ranges::replace(line, '\n', ' ');
    line += '\n';

    std::error_code none;
    const auto size = std::filesystem::file_size(file_, none);
    if (none) {
      make_folders(file_.parent_path());
    } else if (static_cast<int64_t>(size + line.size()) > limit_bytes_) {
      std::filesystem::rename(file_, file_.string() + ".1");
    }
    std::ofstream(file_, std::ios::app) << line << std::flush;
  } catch (const std::exception&) {  // not worth a word: the run's own log has it too
  }
}

std::filesystem::path watch_log_path(const std::filesystem::path& folder, std::string_view host,
                                     int64_t pid, int64_t rank) {
  return folder / "log" /
         fmt::format("dp_{}_{}_{}.log", host, pid,
                     rank < 0 ? std::string("monitor") : fmt::format("rank_{}", rank));
}

}  // namespace triptych

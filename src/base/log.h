#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "base/format.h"

namespace triptych {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// What this process says on standard error. Rank 0 speaks; other ranks only warn and fail, with
/// "[rank 3] " in front. Everything from kInfo up, of every rank, also goes to the log file.
/// All functions may be called from any thread; a message is written by one system call, so that
/// lines of several processes never mix.
void set_log_rank(int rank);

/// The least level shown on the console (default kInfo).
void set_log_level(LogLevel level);
LogLevel log_level();

/// Appends every message, with UTC time, rank and level, to `path`; an empty path ends that.
/// @throws Error when the file cannot be opened.
void set_log_file(const std::filesystem::path& path);

/// True when messages of `level` go anywhere at all; saves the formatting otherwise.
bool log_enabled(LogLevel level);

/// Writes one message (several lines are allowed) without formatting it.
void log_message(LogLevel level, std::string_view message);

/// The line under the log that a progress display keeps rewriting (terminals only). Messages are
/// written above it. An empty text removes it.
void set_live_line(std::string_view text);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kDebug)) {
    log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
  }
}

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kInfo)) {
    log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
  }
}

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_message(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace triptych

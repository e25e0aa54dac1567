#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "base/clock.h"
#include "base/error.h"
#include "base/terminal.h"
#include "base/utf8.h"

namespace triptych {
namespace {

// Part of the process context: set up once in main, before other threads exist.
struct LogState {
  std::mutex mutex;
  int rank = 0;
  LogLevel level = LogLevel::kInfo;
  int file = -1;
  std::string live_line;
};

LogState& state() {
  static LogState* const s = new LogState;  // never destroyed: destructors may still log
  return *s;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // nowhere to complain to
    text.remove_prefix(static_cast<size_t>(n));
  }
}

bool on_console(const LogState& s, LogLevel level) {
  return level >= s.level && (s.rank == 0 || level >= LogLevel::kWarning);
}

std::string console_text(const LogState& s, LogLevel level, std::string_view message) {
  std::string text;
  if (s.rank != 0) text += fmt::format("[rank {}] ", s.rank);
  if (level != LogLevel::kInfo) {
    const Style style = level == LogLevel::kError     ? Style::kRed
                        : level == LogLevel::kWarning ? Style::kYellow
                                                      : Style::kDim;
    text += styled(Stream::kStderr, style, fmt::format("{}:", level_name(level)));
    text += ' ';
  }
  text += message;
  text += '\n';
  return text;
}

constexpr std::string_view kClearLine = "\r\x1b[K";

}  // namespace

void set_log_rank(int rank) {
  const std::lock_guard lock(state().mutex);
  state().rank = rank;
}

void set_log_level(LogLevel level) {
  const std::lock_guard lock(state().mutex);
  state().level = level;
}

LogLevel log_level() {
  const std::lock_guard lock(state().mutex);
  return state().level;
}

void set_log_file(const std::filesystem::path& path) {
  int file = -1;
  if (!path.empty()) {
    file = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    require(file >= 0, path.string(), ": cannot be opened for the log: ", std::strerror(errno));
  }
  const std::lock_guard lock(state().mutex);
  if (state().file >= 0) ::close(state().file);
  state().file = file;
}

bool log_enabled(LogLevel level) {
  const std::lock_guard lock(state().mutex);
  return on_console(state(), level) || (level >= LogLevel::kInfo && state().file >= 0);
}

void log_message(LogLevel level, std::string_view said) {
  const auto message = escape_controls(said);  // it may quote a file that means no good
  LogState& s = state();
  const std::lock_guard lock(s.mutex);
  if (on_console(s, level)) {
    std::string text = console_text(s, level, message);
    if (!s.live_line.empty()) text = fmt::format("{}{}{}", kClearLine, text, s.live_line);
    write_all(STDERR_FILENO, text);
  }
  if (s.file >= 0 && (level >= LogLevel::kInfo || level >= s.level)) {
    write_all(s.file, fmt::format("{} [rank {}] {}: {}\n", utc_time(wall_seconds()), s.rank,
                                  level_name(level), message));
  }
}

void set_live_line(std::string_view text) {
  LogState& s = state();
  const std::lock_guard lock(s.mutex);
  if (text.empty() && s.live_line.empty()) return;
  s.live_line = text;
  write_all(STDERR_FILENO, fmt::format("{}{}", kClearLine, text));
}

}  // namespace triptych

#include "base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>

namespace triptych {
namespace {

std::atomic<ColorMode> color_mode{ColorMode::kAuto};

int descriptor(Stream stream) { return stream == Stream::kStdout ? STDOUT_FILENO : STDERR_FILENO; }

const char* code(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kRed:
      return "\x1b[31m";
    case Style::kGreen:
      return "\x1b[32m";
    case Style::kYellow:
      return "\x1b[33m";
    case Style::kCyan:
      return "\x1b[36m";
  }
  return "";
}

}  // namespace

void set_color_mode(ColorMode mode) { color_mode = mode; }

bool is_terminal(Stream stream) { return ::isatty(descriptor(stream)) == 1; }

bool uses_color(Stream stream) {
  if (color_mode == ColorMode::kAlways) return true;
  if (color_mode == ColorMode::kNever) return false;
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* term = std::getenv("TERM");
  if (term != nullptr && std::string_view(term) == "dumb") return false;
  return is_terminal(stream);
}

int terminal_width(Stream stream) {
  winsize size{};
  if (::ioctl(descriptor(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string styled(Stream stream, Style style, std::string_view text) {
  if (style == Style::kPlain || !uses_color(stream)) return std::string(text);
  std::string result = code(style);
  result += text;
  result += "\x1b[0m";
  return result;
}

int display_width(std::string_view text) {
  int width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {  // skip "ESC [ ... letter"
      while (i < text.size() && !(text[i] >= 'A' && text[i] <= 'z' && text[i] != '[')) ++i;
      continue;
    }
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) ++width;
  }
  return width;
}

}  // namespace triptych

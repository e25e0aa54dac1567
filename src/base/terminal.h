#pragma once

#include <string>
#include <string_view>

namespace triptych {

enum class Stream { kStdout, kStderr };
enum class Style { kPlain, kBold, kDim, kRed, kGreen, kYellow, kCyan };
enum class ColorMode { kAuto, kAlways, kNever };

/// Which streams get colours: by default those that are terminals, unless NO_COLOR is set to
/// something or TERM is "dumb".
void set_color_mode(ColorMode mode);
bool uses_color(Stream stream);

bool is_terminal(Stream stream);

/// Columns of the terminal behind `stream`; 80 when it is none or does not say.
int terminal_width(Stream stream);

/// `text` between the escape codes of `style`, or `text` itself when the stream has no colours.
std::string styled(Stream stream, Style style, std::string_view text);

/// Columns that UTF-8 `text` takes: code points, not counting escape sequences of `styled`.
int display_width(std::string_view text);

}  // namespace triptych

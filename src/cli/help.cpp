#include "cli/help.h"

#include <algorithm>

#include "base/format.h"

namespace triptych {
namespace {

constexpr size_t kWidth = 100;

/// Two columns, the second one wrapped.
std::string columns(const std::vector<std::pair<std::string, std::string>>& rows) {
  size_t left = 0;
  for (const auto& [name, help] : rows) left = std::max(left, name.size());
  std::string text;
  for (const auto& [name, help] : rows) {
    text += fmt::format("  {:<{}}  {}\n", name, left, wrap_text(help, kWidth - left - 4, left + 4));
  }
  return text;
}

std::string flags_text(std::span<const Flag> flags) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Flag& flag : flags) {
    if (flag.name == "-vv") continue;
    rows.emplace_back(flag.name + (flag.value.empty() ? "" : " " + flag.value), flag.help);
  }
  return columns(rows);
}

/// Each line of a text, wrapped.
std::string wrapped_lines(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    result += wrap_text(text.substr(0, end), kWidth, 0) + "\n";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

}  // namespace

std::string wrap_text(std::string_view text, size_t width, size_t indent) {
  std::string result;
  size_t column = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (column > 0 && column + 1 + word.size() > width) {
      result += '\n';
      result.append(indent, ' ');
      column = 0;
    } else if (column > 0) {
      result += ' ';
      ++column;
    }
    result += word;
    column += word.size();
  }
  return result;
}

std::string overview_text(std::span<const Command> commands) {
  std::vector<std::pair<std::string, std::string>> rows;
  for (const Command& command : commands) rows.emplace_back(command.name, command.summary);
  rows.emplace_back("help", "The help of one command: triptych help train.");
  return "Triptych trains multimodal models: text, images and video.\n\n"
         "  triptych COMMAND [flags]\n\n" +
         columns(rows) +
         "\n  --help     this text; after a command, that command's\n"
         "  --version  version, commit and libraries; with --json for programs\n\n"
         "Exit status: 0 done, 1 failed, 2 wrong options (nothing was started), 75 stopped by a "
         "signal after saving.\n";
}

std::string help_text(const Command& command) {
  std::string text = command.summary + "\n\n";
  text += fmt::format("  triptych {} {}\n\n", command.name, command.usage);
  if (!command.flags.empty()) text += flags_text(command.flags) + "\n";
  text += flags_text(common_flags()) + "\n";
  if (!command.details.empty()) text += wrapped_lines(command.details) + "\n";
  if (!command.example.empty()) text += "Example: " + command.example + "\n";
  return text + wrapped_lines("Exit status: " + command.status);
}

}  // namespace triptych

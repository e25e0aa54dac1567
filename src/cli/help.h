#pragma once

#include <span>
#include <string>

#include "cli/command.h"

namespace triptych {

/// `triptych --help`: every command in one line.
std::string overview_text(std::span<const Command> commands);

/// `triptych VERB --help`: what it does, usage, flags, example, exit status.
std::string help_text(const Command& command);

/// Breaks text at blanks so that lines have at most `width` columns; lines after the first begin
/// with `indent` blanks.
std::string wrap_text(std::string_view text, size_t width, size_t indent);

}  // namespace triptych

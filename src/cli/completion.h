#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/option_docs.h"
#include "cli/command.h"

namespace triptych {

/// Scripts that complete commands, flags, choices, and option names after --set.
std::string bash_completion(std::span<const Command> commands, std::span<const OptionDoc> options);
std::string zsh_completion(std::span<const Command> commands, std::span<const OptionDoc> options);
std::string fish_completion(std::span<const Command> commands, std::span<const OptionDoc> options);

}  // namespace triptych

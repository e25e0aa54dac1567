#pragma once

#include <string>
#include <vector>

namespace triptych {

/// The words this process was started with, for copies of it.
std::vector<std::string> command_line();

}  // namespace triptych

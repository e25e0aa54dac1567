#pragma once

#include "cli/command.h"

namespace triptych {

/// `profile start|stop|status RUN_DIR`: asks a running `train` with profile.mode = "dynamic".
int run_profile_control(const Arguments& arguments);

/// Their flags.
std::vector<Flag> profile_control_flags();

}  // namespace triptych

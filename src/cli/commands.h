#pragma once

#include <span>

#include "cli/command.h"

namespace triptych {

// One function per command, each in a file of its own; main.cpp lists those that are built.
Command train_command();
Command generate_command();
Command evaluate_command();
Command export_command();
Command verify_command();
Command plan_command();
Command data_command();
Command profile_command();
Command doctor_command();
Command insight_command();

/// Needs the table of the others, which it completes.
Command completion_command(std::function<std::vector<Command>()> commands);

/// `train --options [--json | --markdown]`: every option of the run file.
int print_run_options(bool json, bool markdown);

}  // namespace triptych

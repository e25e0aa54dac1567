#include <csignal>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/torch_info.h"
#include "kernels/cpu_allocator.h"

namespace {

/// Every command of this build, in the order of the help.
std::vector<triptych::Command> commands() {
  using namespace triptych;  // NOLINT: a table of one namespace's functions
  std::vector<Command> table;
  table.push_back(train_command());
  table.push_back(plan_command());
  table.push_back(generate_command());
  table.push_back(evaluate_command());
  table.push_back(export_command());
  table.push_back(data_command());
  table.push_back(verify_command());
  table.push_back(insight_command());
  table.push_back(profile_command());
  table.push_back(doctor_command());
  table.push_back(completion_command(commands));
  return table;
}

}  // namespace

int main(int argc, char** argv) {
  triptych::keep_standard_descriptors();
  // A file beyond the limit of `ulimit -f` is a write error like a full disk, not the end.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    triptych::install_cpu_allocator();
  } catch (const triptych::UsageError& error) {
    triptych::log_error("{}", error.what());
    return 2;
  }
  triptych::set_torch_info(triptych::read_torch_info_from_library);
  const std::vector<std::string> words(argv + 1, argv + argc);
  return triptych::run_command_line(commands(), words);
}

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/files.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/version.h"
#include "parallel/launch_environment.h"
#include "parallel/launcher.h"
#include "profile/memory_windows.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/trainer.h"

namespace triptych {
namespace {

/// The words this process was started with.
std::vector<std::string> command_line() {
  const std::string text = read_file("/proc/self/cmdline");
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

ResolvedRun read_run(const Arguments& arguments) {
  const std::filesystem::path file = arguments.only("RUN.toml");
  require<UsageError>(std::filesystem::exists(file), file.string(), ": no such run file");
  return read_run_options(
      {.file = file, .environment = environ, .assignments = arguments.all("--set")});
}

int train_here(const LaunchEnvironment& environment, const ResolvedRun& run, bool overwrite) {
  ProcessContext process(environment, process_options(run.options));
  try {
    StepObservers observers;
    observers.push_back(
        std::make_shared<MemoryWindows>(process, run.options.profile.memory, run.options.output));
    const int status = train(process, run, overwrite, version_text(), observers);
    observers.clear();
    process.close();
    return status;
  } catch (const std::exception& error) {
    if (process.report_failure(error)) throw;
    return 1;
  }
}

int run_train(const Arguments& arguments) {
  if (arguments.has("--options"))
    return print_run_options(arguments.has("--json"), arguments.has("--markdown"));
  const auto run = read_run(arguments);
  const int64_t processes = arguments.integer("--nproc", 1, 1);
  if (arguments.has("--dry-run")) {
    if (arguments.has("--nproc")) {
      const auto advice = check_layout(run.options, processes).advice;
      if (!advice.empty()) log_warning("{}", advice);
    }
    const auto found = check_run(run);
    print(arguments.has("--origin") ? options_origin_text(refer(run.options), run.origins)
                                    : options_toml(refer(run.options)));
    log_message(LogLevel::kInfo, found.substr(0, found.size() - 1));
    return 0;
  }
  const auto environment = read_launch_environment();
  const bool starts_workers = processes > 1 || run.options.launch.max_restarts > 0;
  if (environment.own_launcher || !starts_workers)
    return train_here(environment, run, arguments.has("--overwrite"));
  require<UsageError>(environment.launcher == "none", "--nproc ", processes,
                      ": the environment already places this process (", environment.launcher,
                      "); leave --nproc away, or unset its variables");
  check_layout(run.options, processes);
  return launch_workers({.processes = processes,
                         .max_restarts = run.options.launch.max_restarts,
                         .threads = run.options.threads},
                        command_line());
}

}  // namespace

Command train_command() {
  Command command;
  command.name = "train";
  command.summary = "Train or fine-tune a model as a run file says.";
  command.usage = "RUN.toml [--nproc N] [--set KEY=VALUE]... [--overwrite]";
  command.flags = {
      {"--nproc", "N",
       "start N processes on this machine; under torchrun, srun or mpirun leave it"},
      {"--set", "KEY=VALUE", "override an option, e.g. train.steps=100", true},
      {"--overwrite", "", "delete the run that is in the output folder and start anew"},
      {"--dry-run", "",
       "check files, data, model and, with --nproc, the layout; print the resolved options, train "
       "nothing"},
      {"--origin", "", "with --dry-run: where each option's value came from"},
      {"--options", "", "every option with type, default, range and meaning"},
      {"--json", "", "with --options: as JSON schema"},
      {"--markdown", "", "with --options: as the page docs/options.md"},
  };
  command.details =
      "SIGINT, SIGTERM and SIGUSR1 save a checkpoint after the running step and end with status "
      "75; "
      "SIGUSR2 saves and goes on. The same command goes on from the newest checkpoint.";
  command.example = "triptych train examples/quickstart/run.toml --set train.steps=100";
  command.status =
      "0 done, 1 failed, 2 wrong options (nothing was started), 75 stopped after saving a "
      "checkpoint.";
  command.run = run_train;
  return command;
}

}  // namespace triptych

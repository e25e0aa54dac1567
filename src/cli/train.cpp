#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <optional>

#include "base/log.h"
#include "base/signals.h"
#include "base/terminal.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/version.h"
#include "kernels/memory_report.h"
#include "parallel/launch_environment.h"
#include "parallel/launcher.h"
#include "plan/report.h"
#include "profile/memory_windows.h"
#include "profile/profiler.h"
#include "profile/tools_json.h"
#include "train/check_run.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/trainer.h"

namespace triptych {
namespace {

ResolvedRun read_run(const Arguments& arguments) {
  const std::filesystem::path file = arguments.only("RUN.toml");
  require_file(file, "run file");
  return read_run_options(
      {.file = file, .environment = environ, .assignments = arguments.all("--set")});
}

/// `[profile]` of the run file, or what --tools-json says in its place.
Profiler::Settings profile_settings(const RunOptions& options, const std::string& tools_json) {
  Profiler::Settings settings{.profile = options.profile, .version = version_text()};
  if (tools_json.empty()) return settings;
  require_file(tools_json, "tools.json");
  require<UsageError>(options.profile.mode == ProfileMode::kOff, "--tools-json ", tools_json,
                      ": the run file has a [profile] of its own; one of the two");
  const auto tools = read_tools_json(read_json(tools_json), tools_json);
  if (read_launch_environment().rank == 0)
    for (const auto& warning : tools.warnings) log_warning("{}", warning);
  settings.profile = tools.profile;
  settings.relative_steps = true;
  return settings;
}

/// What a plan of this rank says it needs; empty where it cannot be made.
std::string planned_memory_text(const RunOptions& options, const ProcessContext& process) {
  try {
    const auto plan =
        plan_run(options, process.world_size(), process.rank(), process.local_world_size());
    return "\n" + rank_memory_text(plan.ranks.front(), options.data.max_length);
  } catch (const std::exception&) {
    return "";
  }
}

/// Of every rank. Without --nproc of as many as the mesh takes at least.
std::string dry_plan_text(const Arguments& arguments, const RunOptions& options) {
  const auto& p = options.parallel;
  const int64_t least = p.tensor * p.context * p.pipeline;
  const int64_t per_host = arguments.integer("--nproc", least, 1);
  const int64_t processes = per_host * arguments.integer("--nnodes", 1, 1);
  const auto text = plan_text(plan_run(options, processes, {}, per_host), nullptr, nullptr);
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

/// What a stop signal says at once; of one rank. On a terminal ^C stands in a line of its own.
SignalWords signal_words(const LaunchEnvironment& environment) {
  if (environment.rank != 0) return {};
  const bool terminal = is_terminal(Stream::kStderr);
  return {.nothing_to_save = terminal ? "\nstopped before the first step; start again to go on\n"
                                      : "stopped before the first step; start again to go on\n",
          .stopping = terminal ? "\nfinishing the step to save it; again: stop without saving\n"
                               : "finishing the step to save it; again: stop without saving\n"};
}

int train_here(const LaunchEnvironment& environment, const ResolvedRun& run, bool overwrite,
               const Profiler::Settings& profile) {
  SignalFlags signals(SignalFlags::Until::kWorkBegins, kExitStopped, signal_words(environment));
  ProcessContext process(environment, process_options(run.options));
  try {
    StepObservers observers;
    observers.push_back(
        std::make_shared<MemoryWindows>(process, profile.profile.memory, run.options.output));
    if (auto profiler = make_profiler(process, run.options, profile))
      observers.push_back(std::move(profiler));
    const int status = train(process, run, overwrite, version_text(), signals, observers);
    observers.clear();
    process.close();
    return status;
  } catch (const OutOfMemory& error) {
    const OutOfMemory told(error.what() + planned_memory_text(run.options, process));
    if (process.report_failure(told)) throw told;
    return 1;
  } catch (const UsageError& error) {
    process.report_failure(error);
    throw;  // the others find it too; whoever was first, each of them ends with 2
  } catch (const std::exception& error) {
    if (process.report_failure(error)) throw;
    return 1;
  }
}

/// The workers to start from the flags, or from the variables of a pod; nothing where this process
/// is to train itself.
std::optional<WorkerOptions> workers_to_start(const Arguments& arguments,
                                              const LaunchEnvironment& environment,
                                              const RunOptions& options) {
  WorkerOptions workers{.processes = arguments.integer("--nproc", 1, 1),
                        .nodes = arguments.integer("--nnodes", 1, 1),
                        .node = arguments.integer("--node-rank", 0, 0),
                        .max_restarts = options.launch.max_restarts,
                        .threads = options.threads};
  if (environment.own_launcher) return std::nullopt;
  if (environment.launcher == "pytorchjob" && !arguments.has("--nnodes")) {
    workers.nodes = environment.world_size;
    workers.node = environment.rank;
    workers.address = environment.address;
    workers.port = environment.port;
    if (!arguments.has("--nproc")) workers.processes = environment.processes_per_pod;
    if (workers.processes == 1 && workers.max_restarts == 0) return std::nullopt;
    return workers;
  }
  if (workers.processes == 1 && workers.nodes == 1 && workers.max_restarts == 0)
    return std::nullopt;
  require<UsageError>(environment.launcher == "none", "--nproc ", workers.processes,
                      ": the environment already places this process (", environment.launcher,
                      "); leave --nproc away, or unset its variables");
  require<UsageError>(workers.node < workers.nodes, "--node-rank ", workers.node,
                      " must be below --nnodes ", workers.nodes);
  const auto master = arguments.text("--master");
  require<UsageError>(master.empty() == (workers.nodes == 1), "--nnodes ", workers.nodes,
                      " and --master '", master,
                      "': several hosts need the address of host 0, e.g. --master host0:29500, one "
                      "host needs none");
  if (workers.nodes == 1) return workers;
  const auto colon = master.rfind(':');
  const auto port = colon == std::string::npos ? std::string() : master.substr(colon + 1);
  workers.address = master.substr(0, colon);
  const bool bracketed = workers.address.starts_with('[') && workers.address.ends_with(']');
  if (bracketed) workers.address = workers.address.substr(1, workers.address.size() - 2);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), workers.port);
  require<UsageError>(
      !workers.address.empty() && (bracketed || workers.address.find(':') == std::string::npos) &&
          error == std::errc() && end == port.data() + port.size() && workers.port >= 1 &&
          workers.port <= 65535,
      "--master '", master,
      "' is not HOST:PORT with a port from 1 to 65535 (an address of IPv6 in brackets: "
      "[fd00::1]:29500)");
  return workers;
}

int run_train(const Arguments& arguments) {
  if (arguments.has("--options"))
    return print_run_options(arguments.has("--json"), arguments.has("--markdown"));
  const auto run = read_run(arguments);
  check_inputs(run.options);
  const auto profile = profile_settings(run.options, arguments.text("--tools-json"));
  if (arguments.has("--dry-run")) {
    if (arguments.has("--nproc") || arguments.has("--nnodes")) {
      const int64_t per_host = arguments.integer("--nproc", 1, 1);
      const int64_t ranks = per_host * arguments.integer("--nnodes", 1, 1);
      const auto advice = check_layout(run.options, ranks, per_host).advice;
      if (!advice.empty()) log_warning("{}", advice);
    }
    const auto found = check_run(run);
    print_output(arguments.has("--origin") ? options_origin_text(refer(run.options), run.origins)
                                           : options_toml(refer(run.options)));
    log_message(LogLevel::kInfo, found.substr(0, found.size() - 1));
    log_message(LogLevel::kInfo, dry_plan_text(arguments, run.options));
    return 0;
  }
  std::signal(SIGPIPE, SIG_IGN);  // a run goes on when nobody reads what it says: `| head`
  const auto environment = read_launch_environment();
  const auto workers = workers_to_start(arguments, environment, run.options);
  if (!workers) return train_here(environment, run, arguments.has("--overwrite"), profile);
  check_layout(run.options, workers->processes * workers->nodes, workers->processes);
  return launch_workers(*workers, command_line());
}

}  // namespace

Command train_command() {
  Command command;
  command.name = "train";
  command.summary = "Train or fine-tune a model as a run file says.";
  command.usage =
      "RUN.toml [--nproc N] [--nnodes M --node-rank K --master HOST:PORT] [--set KEY=VALUE]... "
      "[--overwrite]";
  command.flags = {
      {"--nproc", "N",
       "start N processes on this machine; under torchrun, srun or mpirun leave it"},
      {"--nnodes", "M", "so many machines, each with N processes: start the command on every one"},
      {"--node-rank", "K", "which of them this is, from 0"},
      {"--master", "HOST:PORT", "where machine 0 is reached, and a free port of it"},
      {"--set", "KEY=VALUE", "override an option, e.g. train.steps=100", true},
      {"--overwrite", "", "delete the run that is in the output folder and start anew"},
      {"--tools-json", "FILE", "profile as this file of MindSpeed-MM says, in place of [profile]"},
      {"--dry-run", "",
       "check files, data, model and layout; print the resolved options and the plan of every "
       "rank's memory, train nothing"},
      {"--origin", "", "with --dry-run: where each option's value came from"},
      {"--options", "", "every option with type, default, range and meaning"},
      {"--json", "", "with --options: as JSON schema"},
      {"--markdown", "", "with --options: as the page docs/options.md"},
  };
  command.details =
      "SIGINT, SIGTERM, SIGUSR1 and SIGHUP save a checkpoint after the running step and end with "
      "status 75; SIGUSR2 saves and goes on. The same command goes on from the newest checkpoint. "
      "-v adds a "
      "line for every step: its samples and tokens, the wait for data, the tensor memory.";
  command.example = "triptych train examples/quickstart/run.toml --set train.steps=100";
  command.status =
      "0 done, 1 failed, 2 wrong options (nothing was started), 75 stopped after saving a "
      "checkpoint.";
  command.run = run_train;
  return command;
}

}  // namespace triptych

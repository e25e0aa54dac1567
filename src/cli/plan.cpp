#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "parallel/launch_environment.h"
#include "parallel/launcher.h"
#include "plan/calibration.h"
#include "plan/report.h"
#include "plan/suggest.h"
#include "train/check_run.h"
#include "train/run_layout.h"
#include "train/run_setup.h"

namespace triptych {
namespace {

constexpr int64_t kSamples = 1024;  // of the run's data, looked at with --data

/// "64GiB", "80GB", or a number of bytes.
int64_t parse_bytes(const std::string& flag, const std::string& text) {
  size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const std::string unit = text.substr(end);
  constexpr std::pair<const char*, double> kUnits[] = {
      {"", 1},          {"KB", 1e3},         {"MB", 1e6},
      {"GB", 1e9},      {"TB", 1e12},        {"KiB", 1024},
      {"MiB", 1048576}, {"GiB", 1073741824}, {"TiB", 1099511627776.0}};
  for (const auto& [name, factor] : kUnits) {
    if (end > 0 && unit == name && number > 0 && number * factor < 9e18)
      return static_cast<int64_t>(number * factor);
  }
  fail<UsageError>(flag, " ", text, ": a size is wanted, such as 64GiB, 80GB or 500MiB");
}

/// This machine as one of the processes that share it sees it: as `--calibrate` found it, or
/// measured now.
Machine this_machine(const RunOptions& options, int64_t processes) {
  const auto device = device_of(options, 0);
  const bool cpu = options.device == DeviceKind::kCpu;
  const std::string precision(name_of(options.model.precision));
  const auto known = read_calibrations(calibration_file());
  auto m = measure_machine(device, compute_type(options));
  if (cpu)
    m = share_of(m, processes, threads_per_process(options.threads, processes), usable_cores());
  const auto* found = find_calibration(known, device_name(device), precision, processes);
  return found == nullptr ? m : calibrated_machine(*found, m, processes);
}

/// The named machine with what the flags say otherwise.
/// @param processes  of the run
Machine chosen_machine(const Arguments& arguments, const RunOptions& options, int64_t processes) {
  const bool cpu = options.device == DeviceKind::kCpu;
  const auto name = arguments.text("--machine", cpu ? "here" : "h100");
  // All processes are taken to be on this machine unless said otherwise.
  const int64_t per_host = arguments.integer("--per-host", name == "here" ? processes : 8, 1);
  auto m = name == "here" ? this_machine(options, std::min(processes, per_host))
                          : machine(name, compute_type(options));
  m.devices_per_host = per_host;
  constexpr double kMost = 1e9;
  const auto rate = [&](const char* flag, double& value, double unit) {
    if (arguments.has(flag)) value = arguments.number(flag, 0, 1e-6, kMost) * unit;
  };
  rate("--peak", m.peak_flop, 1e12);
  rate("--bandwidth", m.memory_bandwidth, 1e9);
  rate("--link", m.link_bandwidth, 1e9);
  rate("--network", m.network_bandwidth, 1e9);
  rate("--latency", m.network_latency, 1e-6);
  if (arguments.has("--memory"))
    m.memory_bytes = parse_bytes("--memory", arguments.text("--memory"));
  return m;
}

/// Flags that say the same twice, or that have nothing to say about what is asked for.
void check_flags(const Arguments& arguments) {
  const auto refuse = [&](const char* flag, const char* beside, const char* why) {
    require<UsageError>(!arguments.has(flag) || !arguments.has(beside), flag, " beside ", beside,
                        ": ", why);
  };
  refuse("--nproc", "--devices", "they are the same; give one of them");
  refuse("--rank", "--suggest", "layouts are compared by all their ranks");
  refuse("--explain", "--suggest", "paste a layout into the run file and explain that");
  for (const char* other : {"--suggest", "--rank", "--explain", "--memory"})
    refuse("--calibrate", other, "calibration plans nothing; plan with --machine here afterwards");
  require<UsageError>(
      !arguments.has("--calibrate") || arguments.text("--machine", "here") == "here",
      "--calibrate measures this machine, not --machine ", arguments.text("--machine"));
  require<UsageError>(arguments.has("--data") || !arguments.has("--samples"),
                      "--samples says how much of the run's data is looked at; add --data");
}

/// What the plan is to go by: with --data the run's first rows, else nothing.
std::optional<PlanData> own_data(const Arguments& arguments, const RunOptions& options) {
  if (!arguments.has("--data")) return std::nullopt;
  return read_plan_data(options, arguments.integer("--samples", kSamples, 1));
}

const PlanData* get(const std::optional<PlanData>& data) { return data ? &*data : nullptr; }

/// Measures this machine with as many processes as the run has here, and keeps the rates.
int run_calibrate(const Arguments& arguments, const RunOptions& options, int64_t processes) {
  const int64_t per_host = arguments.integer("--per-host", processes, 1);
  const int64_t here = std::min(processes, per_host);
  check_layout(options, processes, per_host);
  const auto file = calibration_file();
  require<UsageError>(!file.empty(),
                      "--calibrate: neither XDG_CACHE_HOME nor HOME is set; nowhere to keep rates");
  read_calibrations(file);  // one that cannot be added to is no news for after the measurement
  const auto environment = read_launch_environment();
  if (here > 1 && !environment.own_launcher) {
    require<UsageError>(environment.launcher == "none",
                        "--calibrate starts its own processes; the "
                        "environment already places this one (",
                        environment.launcher, ")");
    return launch_workers({.processes = here, .threads = options.threads}, command_line());
  }
  const auto data = own_data(arguments, options);
  const auto work = record_work(options, processes, environment.rank, per_host, get(data));
  ProcessContext process(environment, process_options(options));
  try {
    const auto device = device_of(options, process.local_rank());
    const auto calibration = calibrate(process, device, compute_type(options), work);
    if (process.rank() == 0) {
      store_calibration(file, calibration);
      print_output(arguments.has("--json")
                       ? dump_json(calibration_json(calibration), 2) + "\n"
                       : calibration_text(calibration) + "kept in " + file.string() + "\n");
    }
    process.close();
    return 0;
  } catch (const std::exception& error) {
    if (process.report_failure(error)) throw;
    return 1;
  }
}

int run_suggest(const Arguments& arguments, const RunOptions& options, const Machine& m,
                int64_t devices) {
  const auto data = own_data(arguments, options);
  const SuggestRequest request{.devices = devices, .memory_bytes = m.memory_bytes};
  const auto found = suggest(options, m, request, get(data));
  print_output(arguments.has("--json") ? dump_json(suggestions_json(found), 2) + "\n"
                                       : suggestions_text(found, m, request));
  return found.fitting.empty() ? 1 : 0;
}

int run_plan(const Arguments& arguments) {
  const std::filesystem::path file = arguments.only("RUN.toml");
  require_file(file, "run file");
  check_flags(arguments);
  const auto run = read_run_options(
      {.file = file, .environment = environ, .assignments = arguments.all("--set")});
  const auto& options = run.options;
  if (options.model.preset.empty()) require_folder(options.model.path, "model folder (model.path)");
  if (arguments.has("--data")) check_inputs(options);  // its tokenizer, too
  const int64_t processes =
      arguments.integer(arguments.has("--devices") ? "--devices" : "--nproc", 1, 1);
  if (arguments.has("--calibrate")) return run_calibrate(arguments, options, processes);
  const auto m = chosen_machine(arguments, options, processes);
  if (arguments.has("--suggest")) return run_suggest(arguments, options, m, processes);

  std::optional<int64_t> rank;
  if (arguments.has("--rank")) rank = arguments.integer("--rank", 0, 0);
  const auto data = own_data(arguments, options);
  const auto plan = plan_run(options, processes, rank, m.devices_per_host, get(data));
  if (!plan.advice.empty()) log_warning("{}", plan.advice);
  // One stage alone says nothing about the time of a pipeline.
  std::optional<StepTime> time;
  if (!rank || plan.mesh.pipeline == 1) time = predict_step(options, plan, m);
  const bool explain = arguments.has("--explain");
  require<UsageError>(!explain || time, "--explain: rank ", rank.value_or(0),
                      " alone says nothing about the time of a pipeline; leave --rank away");
  const auto* known = time ? &*time : nullptr;
  const auto terms = explain ? explain_step(options, plan, m, *time) : std::vector<CostTerm>();
  // Only where the memory was named: what --machine has is no wish of the user's.
  const auto too_large = arguments.has("--memory")
                             ? fit_text(plan, m.memory_bytes, SuggestRequest().share)
                             : std::string();
  if (arguments.has("--json")) {
    auto json = plan_json(plan, known, &m);
    if (explain) json["terms"] = terms_json(terms);
    if (arguments.has("--memory")) json["fits"] = too_large.empty();
    print_output(dump_json(json, 2) + "\n");
  } else {
    print_output(plan_text(plan, known, &m));
    if (explain) print_output(terms_text(terms, *time));
    if (arguments.has("--memory"))
      print_output("\n" + (too_large.empty()
                               ? "every rank fits into " + arguments.text("--memory") + "\n"
                               : too_large));
  }
  return too_large.empty() ? 0 : 1;
}

}  // namespace

Command plan_command() {
  Command command;
  command.name = "plan";
  command.summary = "Memory, exchanges and time of a run on every rank, before it is started.";
  command.usage =
      "RUN.toml --nproc N [--data] [--rank R] [--explain] [--suggest] [--json] [--set "
      "KEY=VALUE]...";
  command.flags = {
      {"--nproc", "N", "processes of the run; any number, none is started"},
      {"--rank", "R", "only this rank"},
      {"--set", "KEY=VALUE", "override an option, e.g. parallel.tensor=8", true},
      {"--data", "",
       "go by the rows of the run's first steps, as train would pack them; nothing is decoded"},
      {"--samples", "N", "with --data: how many to look at, at least a step (default 1024)"},
      {"--json", "", "for programs"},
      {"--explain", "", "every term of the predicted time, with its formula and numbers"},
      {"--suggest", "", "layouts that fit into --memory on --devices, the fastest first"},
      {"--calibrate", "",
       "measure this machine with the run's shapes and processes; --machine here goes by it then"},
      {"--devices", "N", "the same as --nproc"},
      {"--memory", "SIZE", "of a device, e.g. 64GiB: also says whether every rank fits"},
      {"--machine",
       "NAME",
       "what the time is predicted for; here: this machine, measured or calibrated",
       false,
       {"here", "a100", "a800", "h100", "h200"}},
      {"--peak", "TFLOPS", "its dense peak in the run's precision, Tflop/s"},
      {"--bandwidth", "GBS", "its memory's bandwidth, GB/s"},
      {"--link", "GBS", "what a device sends within its host, GB/s"},
      {"--network", "GBS", "what a device sends to other hosts, GB/s"},
      {"--latency", "US", "of a message between hosts, microseconds"},
      {"--per-host", "N", "devices of a host"},
  };
  command.details =
      "The program of each rank is run once on tensors without values; nothing is started or read "
      "but the model's config.json. The data are assumed to fill every row, half of it pictures; "
      "with --data the run's own are read (records, headers of pictures): exchanges and time are "
      "those of the first step, memory that of the fullest micro-batch looked at. "
      "--calibrate starts --nproc processes on this machine for half a minute and keeps what it "
      "measures in $XDG_CACHE_HOME/triptych/calibration.json (or below ~/.cache).";
  command.example = "triptych plan examples/qwen2_5_vl/7b_full.toml --nproc 8 --machine h100";
  command.status =
      "0 done, 1 failed or does not fit into --memory, 2 wrong options (nothing was planned).";
  command.run = run_plan;
  return command;
}

}  // namespace triptych

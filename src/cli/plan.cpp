#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "plan/report.h"
#include "plan/suggest.h"

namespace triptych {
namespace {

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

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

/// The named machine with what the flags say otherwise.
Machine chosen_machine(const Arguments& arguments, DeviceKind device) {
  auto m = machine(arguments.text("--machine", device == DeviceKind::kCpu ? "here" : "h100"));
  constexpr double kMost = 1e9;
  const auto rate = [&](const char* flag, double& value, double unit) {
    if (arguments.has(flag)) value = arguments.number(flag, 0, 1e-6, kMost) * unit;
  };
  rate("--peak", m.peak_flop, 1e12);
  rate("--bandwidth", m.memory_bandwidth, 1e9);
  rate("--link", m.link_bandwidth, 1e9);
  rate("--network", m.network_bandwidth, 1e9);
  rate("--latency", m.network_latency, 1e-6);
  m.devices_per_host = arguments.integer("--per-host", m.devices_per_host, 1);
  if (arguments.has("--memory"))
    m.memory_bytes = parse_bytes("--memory", arguments.text("--memory"));
  return m;
}

int run_plan(const Arguments& arguments) {
  const std::filesystem::path file = arguments.only("RUN.toml");
  require<UsageError>(std::filesystem::exists(file), file.string(), ": no such run file");
  const auto run = read_run_options(
      {.file = file, .environment = environ, .assignments = arguments.all("--set")});
  const bool json = arguments.has("--json");
  const int64_t processes =
      arguments.integer(arguments.has("--devices") ? "--devices" : "--nproc", 1, 1);
  const auto m = chosen_machine(arguments, run.options.device);
  if (arguments.has("--suggest")) {
    const SuggestRequest request{.devices = processes, .memory_bytes = m.memory_bytes};
    const auto found = suggest(run.options, m, request);
    print(json ? dump_json(suggestions_json(found), 2) + "\n"
               : suggestions_text(found, m, request));
    return found.fitting.empty() ? 1 : 0;
  }
  std::optional<int64_t> rank;
  if (arguments.has("--rank")) rank = arguments.integer("--rank", 0, 0);
  const auto plan = plan_run(run.options, processes, rank, m.devices_per_host);
  // One stage alone says nothing about the time of a pipeline.
  std::optional<StepTime> time;
  if (!rank || plan.mesh.pipeline == 1) time = predict_step(run.options, plan, m);
  const auto* known = time ? &*time : nullptr;
  print(json ? dump_json(plan_json(plan, known, &m), 2) + "\n" : plan_text(plan, known, &m));
  return 0;
}

}  // namespace

Command plan_command() {
  Command command;
  command.name = "plan";
  command.summary = "Memory, exchanges and time of a run on every rank, before it is started.";
  command.usage = "RUN.toml --nproc N [--rank R] [--json] [--suggest] [--set KEY=VALUE]...";
  command.flags = {
      {"--nproc", "N", "processes of the run; any number, none is started"},
      {"--rank", "R", "only this rank"},
      {"--set", "KEY=VALUE", "override an option, e.g. parallel.tensor=8", true},
      {"--json", "", "for programs"},
      {"--suggest", "", "layouts that fit into --memory on --devices, the fastest first"},
      {"--devices", "N", "the same as --nproc"},
      {"--memory", "SIZE", "of a device, e.g. 64GiB"},
      {"--machine",
       "NAME",
       "what the time is predicted for; here: this machine's CPU, measured",
       false,
       {"here", "a100", "a800", "h100", "h200"}},
      {"--peak", "TFLOPS", "its dense bf16 peak, Tflop/s"},
      {"--bandwidth", "GBS", "its memory's bandwidth, GB/s"},
      {"--link", "GBS", "what a device sends within its host, GB/s"},
      {"--network", "GBS", "what a device sends to other hosts, GB/s"},
      {"--latency", "US", "of a message between hosts, microseconds"},
      {"--per-host", "N", "devices of a host"},
  };
  command.details =
      "The program of each rank is run once on tensors without values; nothing is started or read "
      "but the model's config.json. The data are assumed to fill every row, half of it pictures.";
  command.example = "triptych plan examples/qwen2_5_vl/7b_full.toml --nproc 8 --machine h100";
  command.run = run_plan;
  return command;
}

}  // namespace triptych

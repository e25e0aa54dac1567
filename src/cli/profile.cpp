#include <filesystem>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "cli/profile_control.h"
#include "insight/hta.h"
#include "insight/queries.h"
#include "insight/report.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using insight::Queries;
using insight::Run;
using insight::Scope;

void write_csv(const Queries& queries, const Json& summary, const Scope& scope,
               const fs::path& folder) {
  make_folders(folder);
  for (const auto& name : insight::table_names())
    write_file_atomically(folder / (name + ".csv"),
                          insight::to_csv(insight::table_by_name(queries, name, scope)));
  write_file_atomically(folder / "memory_layers.csv",
                        insight::to_csv(insight::memory_layers_table(summary)));
  write_file_atomically(folder / "step_trace_time.csv",
                        insight::step_trace_csv(summary, queries.parallel_layout()));
}

int run_summary(const Arguments& arguments, const fs::path& where) {
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  require_file_or_folder(where);
  auto run = std::make_shared<Run>(Run::find({where}));
  run->load(static_cast<int>(arguments.integer("--jobs", cores, 1)));
  Scope scope;
  if (arguments.has("--rank")) scope.rank = arguments.integer("--rank", 0, 0);
  if (arguments.has("--step")) scope.step = arguments.integer("--step", 0, 0);
  if (arguments.has("--hta")) {
    print_output(dump_json(insight::hta_json(*run), 2) + "\n");
    return 0;
  }
  const Queries queries(run);
  const int64_t top = arguments.integer("--top", 15, 1);
  const auto expressions = arguments.all("--fail-if");
  const Json summary = queries.summary_document(scope, top);
  bool failed = false;
  for (const auto& expression : expressions) failed = insight::holds(summary, expression) || failed;
  if (arguments.has("--csv")) {
    write_csv(queries, summary, scope, arguments.text("--csv"));
    print_output("tables written to " + arguments.text("--csv") + "\n");
  } else if (arguments.has("--json")) {
    print_output(dump_json(summary, 2) + "\n");
  } else {
    print_output(insight::report_text(summary, top));
  }
  return failed ? 1 : 0;
}

int run_profile(const Arguments& arguments) {
  arguments.expect(std::vector<std::string>{"start|stop|status|summary", "DIR"});
  const auto& verb = arguments.positional()[0];
  if (verb == "start" || verb == "stop" || verb == "status") return run_profile_control(arguments);
  require<UsageError>(verb == "summary", "profile ", verb,
                      ": no such command; start, stop, status, summary");
  return run_summary(arguments, arguments.positional()[1]);
}

}  // namespace

Command profile_command() {
  Command command;
  command.name = "profile";
  command.summary = "Record steps of a running training, and say where their time went.";
  command.usage =
      "start|stop|status RUN_DIR [--steps N] | summary DIR [--json | --csv FOLDER | --hta]";
  command.flags = {
      {"--json", "", "summary: for programs"},
      {"--csv", "FOLDER", "summary: every table as a CSV file"},
      {"--hta", "", "summary: the figures of HolisticTraceAnalysis by its own rules, as JSON"},
      {"--rank", "R", "summary: only this rank"},
      {"--step", "N", "summary: only this step, numbered as in metrics.jsonl"},
      {"--top", "N", "summary: rows of each table (default 15)"},
      {"--jobs", "N", "summary: threads (default: all cores)"},
      {"--fail-if", "EXPR", "summary: status 1 when it holds, e.g. \"exposed_comm>0.2\"", true},
  };
  for (auto& flag : profile_control_flags()) command.flags.push_back(std::move(flag));
  command.details =
      "start, stop and status speak to a run that was started with profile.mode = \"dynamic\", by "
      "the "
      "file profile/profiler_config.json in its output folder; start waits until the trace is "
      "there "
      "and "
      "prints its name. A run with profile.windows needs none of them. docs/profiling.md says "
      "more.\n\n"
      "summary reads the traces below DIR (a run's output folder, its traces, or those of PyTorch "
      "or "
      "torch_npu), writes an index beside each so that the next reading takes no time, and prints "
      "how "
      "each step's time splits, the top operators and kernels, communication, memory, and "
      "findings.";
  command.example = "triptych profile summary runs/quickstart --fail-if \"exposed_comm>0.2\"";
  command.status = "0 done, 1 failed or --fail-if holds, 2 wrong options (nothing was started).";
  command.run = run_profile;
  return command;
}

}  // namespace triptych

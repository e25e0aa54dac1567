#include "cli/profile_control.h"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"
#include "cli/output.h"
#include "train/dynamic_profile.h"
#include "train/run_options.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

struct RunFolder {
  fs::path watched;
  ProfileOptions options;

  fs::path config() const { return watched / kDynamicConfigName; }
  Json status() const {
    const auto file = watched / kDynamicStatusName;
    return fs::exists(file) ? read_json(file) : Json::object();
  }
};

RunFolder open_run(const fs::path& folder) {
  const auto file = folder / "run.toml";
  require<UsageError>(fs::exists(file), folder.string(),
                      ": no run is here (run.toml is missing); give the run's output folder");
  const auto run = read_run_options({.file = file});
  const auto& profile = run.options.profile;
  require<UsageError>(profile.mode == ProfileMode::kDynamic, folder.string(),
                      ": this run does not watch for requests; start it with profile.mode = "
                      "\"dynamic\" (or resume it so)");
  return {dynamic_folder(folder, profile), profile};
}

std::string text_of(const Json& status, const char* key) {
  return status.contains(key) && status[key].is_string() ? status[key].get<std::string>()
                                                         : std::string();
}

/// rank lists such as "0,3" or "all".
std::vector<int64_t> parse_ranks(const std::string& text) {
  if (text == "all") return {};
  std::vector<int64_t> ranks;
  for (size_t at = 0; at <= text.size();) {
    const auto comma = std::min(text.find(',', at), text.size());
    const auto word = text.substr(at, comma - at);
    require<UsageError>(!word.empty() &&
                            word.find_first_not_of("0123456789") == std::string::npos &&
                            word.size() < 10,
                        "--ranks ", text, ": 'all', or ranks as in 0,3");
    ranks.push_back(std::stoll(word));
    at = comma + 1;
  }
  return ranks;
}

std::string new_id() {
  return fmt::format("{}-{}", ::getpid(), static_cast<int64_t>(wall_seconds() * 1e6));
}

std::string describe(const Json& status) {
  const auto state = text_of(status, "state");
  std::string text = state.empty() ? "the run has not begun yet" : state;
  if (status.contains("current_step"))
    text += fmt::format(", step {} done", status["current_step"].get<int64_t>());
  if (status.contains("start_step") && status["start_step"].is_number_integer())
    text += fmt::format(", steps {} to {}", status["start_step"].get<int64_t>(),
                        status["stop_step"].get<int64_t>() - 1);
  if (const auto trace = text_of(status, "last_trace"); !trace.empty())
    text += "\nlast trace: " + trace;
  if (const auto message = text_of(status, "message"); !message.empty()) text += "\n" + message;
  return text + "\n";
}

/// Waits for the run's answer to request `id`, and with `whole` until its trace is written.
int wait_for(const RunFolder& run, const std::string& id, bool whole, double limit_s) {
  const double begin = steady_seconds();
  while (steady_seconds() - begin < limit_s) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto status = run.status();
    const auto state = text_of(status, "state");
    require(state != "ENDED", "the run has ended: ", text_of(status, "message"));
    if (text_of(status, "request") != id) continue;
    const auto message = text_of(status, "message");
    if (!message.empty()) fail(message);
    if (whole && state != "IDLE") continue;
    print_output(describe(status));
    return 0;
  }
  fail("no answer within ", limit_s,
       " s; is the run alive? `triptych profile status` shows what it "
       "did last, and --wait gives it more time");
}

int start(const Arguments& arguments, const RunFolder& run) {
  auto config = fs::exists(run.config()) ? read_json(run.config()) : dynamic_config(run.options);
  const auto id = new_id();
  config["request"] = id;
  config["stop"] = false;
  config["active"] = arguments.integer("--steps", 1, 1);
  config["start_step"] = arguments.integer("--at", 0, 1);
  if (arguments.has("--ranks")) {
    const auto ranks = parse_ranks(arguments.text("--ranks"));
    config["is_rank"] = !ranks.empty();
    config["rank_list"] = ranks;
  }
  config["profile_memory"] = arguments.has("--memory");
  config["with_stack"] = arguments.has("--stack");
  config["record_shapes"] = arguments.has("--shapes");
  if (arguments.has("--level"))
    config["experimental_config"] = {
        {"profiler_level", fmt::format("Level{}", arguments.integer("--level", 1, 0))}};
  read_dynamic_request(config, run.config().string(), run.options);
  write_file_atomically(run.config(), dump_json(config, 2) + "\n");
  return wait_for(run, id, !arguments.has("--no-wait"), arguments.number("--wait", 600, 1, 1e9));
}

int stop(const Arguments& arguments, const RunFolder& run) {
  auto config = fs::exists(run.config()) ? read_json(run.config()) : dynamic_config(run.options);
  const auto id = new_id();
  config["request"] = id;
  config["stop"] = true;
  write_file_atomically(run.config(), dump_json(config, 2) + "\n");
  return wait_for(run, id, !arguments.has("--no-wait"), arguments.number("--wait", 600, 1, 1e9));
}

}  // namespace

std::vector<Flag> profile_control_flags() {
  return {
      {"--steps", "N", "start: how many steps (default 1)"},
      {"--at", "STEP", "start: begin with this step (default: the next one)"},
      {"--ranks", "R,R", "start: these ranks, or all (default: as in profiler_config.json)"},
      {"--level", "L", "start: 0 operators, 1 + communication and modules, 2 + flop"},
      {"--memory", "", "start: record allocations"},
      {"--stack", "", "start: name inner modules too"},
      {"--shapes", "", "start: record shapes of inputs"},
      {"--wait", "S", "start, stop: give up waiting for the run after S seconds (default 600)"},
      {"--no-wait", "", "start, stop: return as soon as the run has taken the request"},
  };
}

int run_profile_control(const Arguments& arguments) {
  const auto& verb = arguments.positional()[0];
  const auto run = open_run(arguments.positional()[1]);
  if (verb == "start") return start(arguments, run);
  if (verb == "stop") return stop(arguments, run);
  print_output(describe(run.status()));
  return 0;
}

}  // namespace triptych

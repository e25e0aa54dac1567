#pragma once

// A run of the command that records itself, for tests.

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/command_runs.h"
#include "insight/gzip.h"
#include "support/paths.h"

namespace triptych {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Gt;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

/// A program that runs beside the test and never outlives it: the destructor kills it, and the
/// kernel does where the test itself is killed. The workers of a launcher end with their launcher.
class StartedRun {
 public:
  /// @param words  the program's path and its arguments
  /// @param err    where its standard error goes
  StartedRun(std::vector<std::string> words, const fs::path& err) {
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const auto parent = getpid();
    pid_ = fork();
    require(pid_ >= 0, words.front(), ": cannot be started");
    if (pid_ > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || std::freopen(err.c_str(), "w", stderr) == nullptr) _exit(126);
    execv(arguments.front(), arguments.data());
    _exit(127);
  }
  ~StartedRun() {
    if (running()) kill(pid_, SIGKILL);
    wait();
  }
  StartedRun(const StartedRun&) = delete;
  StartedRun& operator=(const StartedRun&) = delete;

  pid_t pid() const { return pid_; }
  bool running() { return !ended(WNOHANG); }
  /// Its exit status; 128 + signal when it was killed.
  int wait() {
    ended(0);
    return status_;
  }
  /// Waits until `holds()`. @return false where the run ended or `limit_s` went by before.
  template <class Holds>
  bool until(const Holds& holds, double limit_s = 120) {
    for (const auto end = steady_seconds() + limit_s; !holds();) {
      if (!running() || steady_seconds() > end) return holds();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return true;
  }

  /// Of a launcher: the processes that know their rank by now.
  std::map<pid_t, int> workers() const {
    std::map<pid_t, int> found;
    std::ifstream list(fmt::format("/proc/{0}/task/{0}/children", pid_));
    for (pid_t pid = 0; list >> pid;) {
      std::ifstream environment(fmt::format("/proc/{}/environ", pid));
      for (std::string entry; std::getline(environment, entry, '\0');)
        if (entry.starts_with("RANK=")) found[pid] = std::stoi(entry.substr(5));
    }
    return found;
  }

 private:
  bool ended(int flags) {
    int status = 0;
    if (status_ >= 0 || waitpid(pid_, &status, flags) != pid_) return status_ >= 0;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }

  pid_t pid_ = -1;
  int status_ = -1;  ///< once it has ended
};

class ProfiledRuns : public CommandRuns {
 protected:
  fs::path run_file(const std::string& more, int64_t steps = 5, int64_t rows = 4) const {
    return write_run("run", folder_ / "out", "weights = \"random\"",
                     fmt::format("steps = {}\nglobal_batch = {}", steps, rows),
                     "[checkpoint]\nevery = 0\n" + more);
  }
  void train(const std::string& more, const std::string& words = "", int64_t steps = 5) const {
    const auto outcome = run(fmt::format("train {} {}", run_file(more, steps).string(), words));
    ASSERT_EQ(outcome.status, 0) << outcome.err;
  }
  /// `train` on two processes, beside the test; what it says goes into train.err.
  StartedRun start(const fs::path& file) const {
    return {{triptych_command(), "train", file.string(), "--nproc", "2"}, folder_ / "train.err"};
  }
  std::string said() const { return read_file(folder_ / "train.err"); }
  Json summary(const std::string& words = "") const {
    const auto outcome =
        run(fmt::format("profile summary {}/out --json {}", folder_.string(), words));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return parse_json(outcome.out, "summary");
  }
  std::vector<fs::path> traces(const std::string& folder = "out/traces") const {
    std::set<fs::path> found;
    if (fs::exists(folder_ / folder))
      for (const auto& entry : fs::directory_iterator(folder_ / folder))
        if (entry.path().extension() == ".gz") found.insert(entry.path());
    return {found.begin(), found.end()};
  }
  static Json read_trace(const fs::path& file) {
    return parse_json(insight::gunzip(read_file(file), size_t{1} << 30), file.string());
  }
  /// Losses and norms as they were written, digit for digit.
  std::vector<std::string> losses() const {
    std::vector<std::string> found;
    std::ifstream file(folder_ / "out/metrics.jsonl");
    for (std::string line; std::getline(file, line) && !file.eof();) {  // whole lines
      const auto row = parse_json(line, "metrics");
      found.push_back(dump_json(row["loss"]) + " " + dump_json(row["grad_norm"]));
    }
    return found;
  }
};

inline std::vector<Json> events(const Json& trace, const std::string& category) {
  std::vector<Json> found;
  for (const auto& e : trace["traceEvents"])
    if (e.value("cat", "") == category) found.push_back(e);
  return found;
}

inline std::set<std::string> names(const std::vector<Json>& list) {
  std::set<std::string> found;
  for (const auto& e : list) found.insert(e["name"].get<std::string>());
  return found;
}

inline std::vector<int64_t> steps_of(const Json& summary, int64_t rank) {
  std::vector<int64_t> steps;
  for (const auto& s : summary["steps"])
    if (s["rank"] == rank) steps.push_back(s["step"]);
  return steps;
}

inline void expect_steps_add_up(const Json& summary) {
  for (const auto& s : summary["steps"]) {
    const auto ns = [&](const char* key) { return s[key].get<int64_t>(); };
    EXPECT_EQ(ns("total_ns"), ns("compute_only_ns") + ns("overlapped_ns") + ns("exposed_comm_ns") +
                                  ns("free_ns") + ns("preparing_ns"))
        << s;
    EXPECT_GT(ns("compute_ns"), 0) << s;
  }
}

}  // namespace triptych

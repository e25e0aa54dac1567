#pragma once

// A run of the command that records itself, for tests.

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/format.h"
#include "base/json.h"
#include "insight/gzip.h"

namespace triptych {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::Gt;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

inline fs::path made;  // what quickstart_data made

struct Outcome {
  int status = -1;
  std::string out, err;
};

class ProfiledRuns : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("profiled_{}_{}", info->name(), getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    if (!HasFailure()) fs::remove_all(folder_);
  }

  Outcome run(const std::string& words) const {
    const auto out = folder_ / "stdout", err = folder_ / "stderr";
    const int status = std::system(
        fmt::format("{} {} > {} 2> {}", TRIPTYCH_COMMAND, words, out.string(), err.string())
            .c_str());
    return {WEXITSTATUS(status), read_file(out), read_file(err)};
  }

  fs::path run_file(const std::string& more, int64_t steps = 5, int64_t rows = 4) const {
    write_file_atomically(folder_ / "run.toml",
                          fmt::format(R"(output = "{0}/out"
seed = 5
threads = 1
[model]
path = "{1}/model"
weights = "random"
[[data.train]]
path = "{1}/data/train.jsonl"
[data]
max_length = 256
[train]
steps = {2}
global_batch = {3}
micro_batch = 1
validate_every = 0
[optimizer]
lr = 1e-3
[schedule]
name = "constant"
[checkpoint]
every = 0
{4}
)",
                                      folder_.string(), made.string(), steps, rows, more));
    return folder_ / "run.toml";
  }
  void train(const std::string& more, const std::string& words = "", int64_t steps = 5) const {
    const auto outcome = run(fmt::format("train {} {}", run_file(more, steps).string(), words));
    ASSERT_EQ(outcome.status, 0) << outcome.err;
  }
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
  std::string metrics() const { return read_file(folder_ / "out/metrics.jsonl"); }
  /// Losses and norms as they were written, digit for digit.
  std::vector<std::string> losses() const {
    std::vector<std::string> found;
    std::ifstream file(folder_ / "out/metrics.jsonl");
    for (std::string line; std::getline(file, line);) {
      const auto row = parse_json(line, "metrics");
      found.push_back(dump_json(row["loss"]) + " " + dump_json(row["grad_norm"]));
    }
    return found;
  }

  fs::path folder_;
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

#pragma once

// What tests of whole runs of the command share: a folder a test, and the command run in it.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/files.h"
#include "base/format.h"
#include "support/paths.h"

namespace triptych {

namespace fs = std::filesystem;

inline fs::path made;  ///< a folder of quickstart_data

struct Outcome {
  int status = -1;
  std::string out, err;
};

class CommandRuns : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("run_{}_{}", info->name(), getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    if (!HasFailure()) fs::remove_all(folder_);
  }

  /// Runs `triptych <words>`; `around` may put shell text around it: "{}" is the command.
  Outcome run(const std::string& words, const std::string& around = "{}") const {
    auto line = around;
    line.replace(line.find("{}"), 2, fmt::format("{} {}", triptych_command(), words));
    const auto out = folder_ / "stdout", err = folder_ / "stderr";
    const int status =
        std::system(fmt::format("({}) > {} 2> {}", line, out.string(), err.string()).c_str());
    return {WEXITSTATUS(status), read_file(out), read_file(err)};
  }

  /// A run file with everything small: `model` and `train` go into the sections of that name,
  /// `more` behind all.
  fs::path write_run(const std::string& name, const fs::path& output, const std::string& model,
                     const std::string& train, const std::string& more) const {
    const auto file = folder_ / (name + ".toml");
    write_file_atomically(file, fmt::format(R"(output = "{0}"
seed = 5
threads = 1
[model]
path = "{1}/model"
{2}
[[data.train]]
path = "{1}/data/train.jsonl"
[data]
max_length = 256
[optimizer]
lr = 1e-3
[schedule]
name = "constant"
[train]
micro_batch = 1
validate_every = 0
{3}
{4}
)",
                                            output.string(), made.string(), model, train, more));
    return file;
  }

  fs::path folder_;
};

/// `main` of such a test: its one argument is a folder made by quickstart_data.
inline int run_tests_on_made(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "%s FOLDER\n", argv[0]);
    return 2;
  }
  made = fs::absolute(argv[1]);
  return RUN_ALL_TESTS();
}

}  // namespace triptych

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "cli/commands.h"
#include "http_client.h"
#include "support/scratch.h"
#include "synthetic.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct Outcome {
  int status;
  std::string err;
};

Outcome run(const std::vector<std::string>& words) {
  const std::vector<Command> commands = {insight_command()};
  testing::internal::CaptureStderr();
  Outcome outcome{};
  outcome.status = run_command_line(commands, words);
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

class InsightCommand : public testing::Test {
 protected:
  void SetUp() override { write_synthetic_run({.data = 1, .steps = 2}, folder / "traces"); }
  const Scratch scratch;
  const fs::path folder = scratch.path();
};

TEST_F(InsightCommand, WrongOptionsStartNothing) {
  const std::string dir = folder.string();
  EXPECT_EQ(run({"insight"}).status, 2);
  EXPECT_EQ(run({"insight", dir, "--port", "70000"}).status, 2);
  EXPECT_EQ(run({"insight", dir, "--port", "-1"}).status, 2);
  EXPECT_EQ(run({"insight", dir, "--token", "short"}).status, 2);
  EXPECT_EQ(run({"insight", dir, "--token", "with spaces and; signs"}).status, 2);
  for (const char* flag : {"--full-rank", "--report-events"}) {
    const Outcome alone = run({"insight", dir, flag, "0"});
    EXPECT_EQ(alone.status, 2);
    EXPECT_THAT(alone.err, HasSubstr(std::string(flag) + " belongs to --report"));
  }
  const Outcome open = run({"insight", dir, "--host", "0.0.0.0"});
  EXPECT_EQ(open.status, 2);
  EXPECT_THAT(open.err, HasSubstr("give a --token as well"));
}

TEST_F(InsightCommand, NamesWhatIsNotThere) {
  const Outcome missing = run({"insight", (folder / "nothing").string()});
  EXPECT_EQ(missing.status, 2);
  EXPECT_THAT(missing.err, HasSubstr("nothing"));
}

TEST_F(InsightCommand, WritesAReport) {
  const fs::path report = folder / "report.html";
  EXPECT_EQ(run({"insight", folder.string(), "--report", report.string(), "--read-only"}).status,
            0);
  EXPECT_THAT(read_file(report), HasSubstr("id=\"report-data\""));
}

/// Prints its address on one line, answers there, and ends well on SIGTERM.
TEST_F(InsightCommand, ServesUntilItIsTold) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // where an assertion ends the test first
    dup2(ends[1], STDOUT_FILENO);
    const std::vector<Command> commands = {insight_command()};
    const std::vector<std::string> words = {"insight", folder.string(), "--port", "0",
                                            "--read-only"};
    _exit(run_command_line(commands, words));
  }
  close(ends[1]);
  std::string line;
  for (char c = 0; read(ends[0], &c, 1) == 1 && c != '\n';) line += c;
  const std::string prefix = "http://127.0.0.1:";
  ASSERT_TRUE(line.starts_with(prefix)) << line;
  const int port = std::atoi(line.c_str() + prefix.size());
  EXPECT_EQ(get(port, "/").status, 200);
  EXPECT_THAT(get(port, "/api/v1/info").body, HasSubstr("\"loaded\""));
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  close(ends[0]);
}

}  // namespace
}  // namespace triptych::insight

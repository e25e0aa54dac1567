#include "base/log.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include "base/error.h"
#include "base/files.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::ThrowsMessage;

class Log : public testing::Test {
 protected:
  Log()
      : path_(std::filesystem::temp_directory_path() /
              ("triptych_log_" + std::to_string(getpid()) + ".txt")) {}
  ~Log() override {
    set_log_file({});
    set_log_rank(0);
    set_log_level(LogLevel::kInfo);
    std::filesystem::remove(path_);
  }
  std::filesystem::path path_;
};

TEST_F(Log, RankZeroSpeaksPlainly) {
  testing::internal::CaptureStderr();
  log_info("loaded {} tensors", 7);
  log_warning("slow {}", "disk");
  log_debug("not shown");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "loaded 7 tensors\nwarning: slow disk\n");
}

TEST_F(Log, OtherRanksOnlyWarnAndFail) {
  set_log_rank(3);
  testing::internal::CaptureStderr();
  log_info("silent");
  log_error("gone");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "[rank 3] error: gone\n");
}

TEST_F(Log, FileGetsEverythingWithTimeAndRank) {
  set_log_file(path_);
  set_log_rank(2);
  testing::internal::CaptureStderr();
  log_info("silent on the console");
  testing::internal::GetCapturedStderr();
  EXPECT_THAT(
      read_file(path_),
      MatchesRegex("20[0-9-]+T[0-9:.]+\\+00:00 \\[rank 2\\] info: silent on the console\n"));
}

TEST_F(Log, MessagesGoAboveTheLiveLine) {
  testing::internal::CaptureStderr();
  set_live_line("step 1");
  log_info("saved");
  set_live_line("");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "\r\x1b[Kstep 1\r\x1b[Ksaved\nstep 1\r\x1b[K");
}

TEST_F(Log, FileThatCannotBeOpenedIsNamed) {
  EXPECT_THAT(
      [] { set_log_file("/nonexistent/log.txt"); },
      ThrowsMessage<Error>(HasSubstr("/nonexistent/log.txt: cannot be opened for the log")));
}

}  // namespace
}  // namespace triptych

// Signals and memory figures.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "base/memory.h"
#include "base/signals.h"
#include "base/suggest.h"

namespace triptych {
namespace {

TEST(Signals, FirstSavesSecondStops) {
  SignalFlags flags;
  EXPECT_EQ(flags.stop(), StopRequest::kNone);
  std::raise(SIGTERM);
  EXPECT_EQ(flags.stop(), StopRequest::kSaveAndStop);
  EXPECT_STREQ(flags.stop_signal(), "SIGTERM");
  std::raise(SIGINT);
  EXPECT_EQ(flags.stop(), StopRequest::kStopNow);
  EXPECT_STREQ(flags.stop_signal(), "SIGTERM");
}

TEST(Signals, WarningBeforeTheEndDoesNotCountAsSecond) {
  SignalFlags flags;
  std::raise(SIGUSR1);
  EXPECT_EQ(flags.stop(), StopRequest::kSaveAndStop);
  std::raise(SIGTERM);
  EXPECT_EQ(flags.stop(), StopRequest::kSaveAndStop);
}

TEST(Signals, AClosedTerminalSavesAndDoesNotHurry) {
  SignalFlags flags;
  std::raise(SIGHUP);
  std::raise(SIGHUP);
  EXPECT_EQ(flags.stop(), StopRequest::kSaveAndStop);
  EXPECT_STREQ(flags.stop_signal(), "SIGHUP");
}

TEST(Signals, NohupStaysInForce) {
  struct sigaction ignore{}, before{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGHUP, &ignore, &before);
  {
    SignalFlags flags;
    std::raise(SIGHUP);
    EXPECT_EQ(flags.stop(), StopRequest::kNone);
  }
  struct sigaction after{};
  sigaction(SIGHUP, &before, &after);
  EXPECT_EQ(after.sa_handler, SIG_IGN);
}

TEST(Signals, BeforeTheWorkThereIsNothingToSave) {
  const auto status_of = [](auto body) {
    const pid_t child = fork();
    if (child == 0) {
      body();
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) {
    EXPECT_EQ(status_of([signal] {
                SignalFlags flags(SignalFlags::Until::kWorkBegins, 75);
                std::raise(signal);
              }),
              75);
    EXPECT_EQ(status_of([signal] {
                SignalFlags flags(SignalFlags::Until::kWorkBegins, 75);
                std::raise(SIGUSR2);  // asks for a save only
                flags.work_begins();
                std::raise(signal);
                _exit(flags.stop() == StopRequest::kSaveAndStop ? 3 : 4);
              }),
              3);
  }
}

TEST(Signals, Usr2AsksOnceForASave) {
  SignalFlags flags;
  EXPECT_FALSE(flags.take_save_request());
  std::raise(SIGUSR2);
  EXPECT_EQ(flags.stop(), StopRequest::kNone);
  EXPECT_TRUE(flags.take_save_request());
  EXPECT_FALSE(flags.take_save_request());
}

TEST(Signals, ThirdKills) {
  const pid_t child = fork();
  if (child == 0) {
    SignalFlags flags;
    for (int i = 0; i < 3; ++i) std::raise(SIGINT);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGINT);
}

TEST(Signals, OldHandlersComeBack) {
  {
    SignalFlags flags;
  }
  struct sigaction now{};
  sigaction(SIGTERM, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
}

TEST(Memory, PeakSeesWhatWasTouched) {
  const uint64_t before = resident_bytes();
  ASSERT_GT(before, 0u);
  {
    std::vector<char> block(64 << 20, 1);
    EXPECT_GE(resident_bytes(), before + (60 << 20));
  }
  EXPECT_GE(peak_resident_bytes(), before + (60 << 20));
  EXPECT_GE(total_memory_bytes(), peak_resident_bytes());
}

TEST(Suggest, NearestNames) {
  const std::vector<std::string> names = {"tensor", "pipeline", "warmup_steps", "lr"};
  EXPECT_EQ(nearest_name("tenosr", names), "tensor");
  EXPECT_EQ(nearest_name("warmup", names), "warmup_steps");
  EXPECT_EQ(nearest_name("rl", names), "lr");
  EXPECT_EQ(nearest_name("completely", names), "");
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abcd", "acbd"), 1);
}

}  // namespace
}  // namespace triptych

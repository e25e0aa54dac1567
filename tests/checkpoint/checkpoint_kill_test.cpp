// Saves that are killed at any instant: the newest complete checkpoint is whole, and it is at least
// the last one whose save had returned.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/optimizer_state.h"
#include "save_for_test.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

/// Saves from `step` on until killed; tells each finished step through the pipe.
[[noreturn]] void save_for_ever(const fs::path& output, int64_t step, bool async, int pipe) {
  SmallModel model;
  model.a = at::zeros({600, 500});  // 9 MB a save, so that most kills land inside one
  CheckpointWriter writer({.output = output, .keep = 2, .async = async});
  for (;; ++step) {
    model.fill(static_cast<double>(step));
    writer.save(step, model.weights(), model.pieces(), {{"step", step}});
    writer.before_update();
    model.fill(-1);
    writer.wait();
    if (::write(pipe, &step, sizeof step) != sizeof step) ::_exit(1);
  }
}

/// Starts the child, kills it `delay` after its first finished save; the last step it told of.
int64_t run_and_kill(const fs::path& output, int64_t step, bool async,
                     std::chrono::microseconds delay) {
  int ends[2];
  require(::pipe(ends) == 0, "no pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    save_for_ever(output, step, async, ends[1]);
  }
  ::close(ends[1]);
  int64_t told = 0, last = 0;
  EXPECT_EQ(::read(ends[0], &told, sizeof told), static_cast<ssize_t>(sizeof told));
  last = told;
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  while (::read(ends[0], &told, sizeof told) == sizeof told) last = told;
  ::close(ends[0]);
  return last;
}

TEST(CheckpointKill, AtAnyInstantNothingIsLost) {
  at::set_num_threads(1);  // the parent forks, so it keeps no threads
  const Scratch scratch;
  std::mt19937 random(20);
  int64_t next = 1, interrupted = 0;
  for (int round = 0; round < 40; ++round) {
    const std::chrono::microseconds delay(random() % 30'000);
    const int64_t last = run_and_kill(scratch.path(), next, round % 2 == 0, delay);
    int64_t entries = 0;
    for (const auto& entry : fs::directory_iterator(scratch / "checkpoints")) {
      entries += entry.path().filename().string().starts_with(".");
    }
    interrupted += entries > 0;
    const auto found = find_newest_complete(scratch.path(), /*verify=*/true);
    ASSERT_TRUE(found);
    ASSERT_GE(found->step, last);
    EXPECT_EQ(found->state()["step"], found->step);
    const auto value = static_cast<double>(found->step);
    EXPECT_TRUE(HubFolder::open(found->weights()).read("a").eq(value).all().item<bool>());
    auto state = at::empty({600, 500});
    OptimizerStateReader(found->optimizer()).read_range("a", "exp_avg", 0, state.numel(), state);
    EXPECT_TRUE(state.eq(value).all().item<bool>());
    next = found->step + 1;
  }
  remove_leftovers(scratch.path());
  for (const auto& entry : fs::directory_iterator(scratch / "checkpoints")) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
  }
  EXPECT_LE(listed_checkpoints(scratch.path()).size(), 3);
  EXPECT_GE(interrupted, 5) << "the kills missed the saves; is the delay too short or too long?";
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  triptych::set_log_level(triptych::LogLevel::kWarning);
  return RUN_ALL_TESTS();
}

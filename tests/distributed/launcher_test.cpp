// `launch_workers` starts copies of this program; what they do stands in the configuration.
#include "parallel/launcher.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <thread>

#include "base/files.h"
#include "parallel/launch_environment.h"
#include "ranks.h"
#include "support/scratch.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing_ranks::run_alone;

void on_stop(int) { std::_Exit(75); }  // a worker that saves and ends

int worker(const Json& config) {
  const auto env = read_launch_environment();
  const auto restart = *process_variable("TRIPTYCH_RESTART");
  std::cout << "rank " << env.rank << " of " << env.world_size << " at " << env.address
            << (env.port > 0 && env.local_world_size == env.world_size ? " ok" : " wrong")
            << ", store " << (env.store_fd >= 0 ? "inherited" : "elsewhere") << ", threads "
            << *process_variable("OMP_NUM_THREADS") << ", restart " << restart << std::endl;
  std::cerr << "to error" << std::endl;
  const auto what = config.value("what", std::string());
  if (what == "wait for a signal") {
    ::signal(SIGTERM, on_stop);
    ::signal(SIGUSR1, on_stop);
    std::ofstream(config.at("folder").get<std::string>() + "/" + std::to_string(::getpid()))
        << env.rank;
    std::this_thread::sleep_for(std::chrono::seconds(30));
  }
  if (env.rank != config.value("rank", -1)) {
    if (config.value("others_hang", false)) std::this_thread::sleep_for(std::chrono::seconds(60));
    return config.value("others", 0);
  }
  if (what == "dies") ::kill(::getpid(), SIGKILL);
  if (what == "status") return config.at("status").get<int>();
  if (what == "fails once" && restart == "0") return 1;
  return 0;
}

/// The parent: in a process of its own, so that signals and output are its own.
int parent(const Json& config) {
  ::setenv("TRIPTYCH_TEST_SCENARIO", "worker", 1);
  ::unsetenv("OMP_NUM_THREADS");
  const std::vector<std::string> argv = {"worker", "argument"};
  return launch_workers({.processes = config.value("processes", 3),
                         .max_restarts = config.value("max_restarts", 0),
                         .threads = 1,
                         .grace_s = 0.5},
                        argv);
}

TEST(Launcher, GivesWorkersTheirVariablesAndMarksTheirLines) {
  const auto end = run_alone("parent", Json::object());
  EXPECT_EQ(end.status, 0) << end.output;
  EXPECT_THAT("\n" + end.output,
              HasSubstr("\nrank 0 of 3 at 127.0.0.1 ok, store inherited, threads 1, "
                        "restart 0"));
  EXPECT_THAT("\n" + end.output,
              HasSubstr("\n[rank 1] rank 1 of 3 at 127.0.0.1 ok, store elsewhere"));
  EXPECT_THAT("\n" + end.output, HasSubstr("\n[rank 2] to error"));
}

struct Row {
  Json config;
  int status;
  std::string says;
};
class Ends : public testing::TestWithParam<Row> {};

TEST_P(Ends, GiveTheStatusOfTheFirstFailure) {
  const auto end = run_alone("parent", GetParam().config, 20);
  EXPECT_EQ(end.status, GetParam().status) << end.output;
  EXPECT_THAT(end.output, HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Ends,
    testing::Values(
        Row{{{"rank", 1}, {"what", "dies"}, {"others_hang", true}},
            1,
            "rank 1 was killed by signal 9 (Killed); if nobody sent it, the host may be out of "
            "memory; all ranks were stopped"},
        Row{{{"rank", 2}, {"what", "status"}, {"status", 3}, {"others_hang", true}},
            3,
            "rank 2 failed with status 3"},
        Row{{{"rank", 0}, {"what", "status"}, {"status", 2}, {"others", 2}, {"max_restarts", 3}},
            2,
            "failed with status 2"},
        Row{{{"rank", 0}, {"what", "status"}, {"status", 75}, {"others", 75}}, 75, ""},
        Row{{{"rank", 1}, {"what", "fails once"}, {"max_restarts", 1}},
            0,
            "starting all 3 ranks again from the last checkpoint (restart 1 of 1)"},
        Row{{{"rank", 1}, {"what", "status"}, {"status", 1}, {"max_restarts", 2}},
            1,
            "(restart 2 of 2)"}));

/// Starts the parent, waits until all workers are ready, does something to it.
int with_running_parent(const std::function<void(pid_t)>& act, std::vector<pid_t>& workers) {
  const Scratch folder;
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("TRIPTYCH_TEST_SCENARIO", "parent", 1);
    const Json config = {
        {"what", "wait for a signal"}, {"folder", folder.path().string()}, {"max_restarts", 2}};
    ::setenv("TRIPTYCH_TEST_CONFIG", dump_json(config).c_str(), 1);
    ::execl("/proc/self/exe", "parent", nullptr);
    ::_exit(127);
  }
  for (int i = 0; i < 1000 && workers.size() < 3; ++i) {
    workers.clear();
    for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
      workers.push_back(std::stoi(file.path().filename().string()));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(workers.size(), 3U);
  act(pid);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool all_gone(const std::vector<pid_t>& workers) {
  for (int i = 0; i < 300; ++i) {
    bool gone = true;
    for (const auto pid : workers) {
      std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
      std::string number, name, state;
      gone = gone && (!(stat >> number >> name >> state) || state == "Z");
    }
    if (gone) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST(Signals, ReachEveryWorkerAndRuleOutRestarts) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    std::vector<pid_t> workers;
    EXPECT_EQ(with_running_parent([&](pid_t pid) { ::kill(pid, signal); }, workers), 75);
    EXPECT_TRUE(all_gone(workers));
  }
}

TEST(Signals, AKilledParentTakesItsWorkersAlong) {
  std::vector<pid_t> workers;
  EXPECT_EQ(with_running_parent([](pid_t pid) { ::kill(pid, SIGKILL); }, workers), 128 + SIGKILL);
  EXPECT_TRUE(all_gone(workers));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("worker", triptych::worker);
  triptych::testing_ranks::add_scenario("parent", triptych::parent);
  return triptych::testing_ranks::run_main(argc, argv);
}

#include "ranks.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "support/scratch.h"

namespace triptych::testing_ranks {

namespace {

std::map<std::string, Scenario>& scenarios() {
  static std::map<std::string, Scenario> all;
  return all;
}

using Variables = std::map<std::string, std::string>;

/// One child; standard output and error go into a file.
class Child {
 public:
  Child(const Variables& variables, const std::filesystem::path& output, int keep_fd)
      : output_(output) {
    pid_ = ::fork();
    if (pid_ != 0) return;
    const int out = ::open(output.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_APPEND, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    if (keep_fd >= 0) ::fcntl(keep_fd, F_SETFD, 0);
    for (const auto& [name, value] : variables) {
      value.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), value.c_str(), 1);
    }
    ::execl("/proc/self/exe", "rank", nullptr);
    ::_exit(127);
  }

  bool poll() {
    if (end_.status >= 0) return true;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    end_.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }
  void kill() const { ::kill(pid_, SIGKILL); }
  RankEnd end() {
    std::ifstream file(output_);
    std::stringstream text;
    text << file.rdbuf();
    end_.output = text.str();
    return end_;
  }

 private:
  std::filesystem::path output_;
  pid_t pid_ = -1;
  RankEnd end_;
};

Started wait_for(std::vector<Child>& children, double limit_s) {
  Started result;
  const double start = steady_seconds();
  for (bool all = false, killed = false; !all;) {
    all = true;
    for (auto& child : children) all = child.poll() && all;
    if (!all && !killed && steady_seconds() - start > limit_s) {
      for (const auto& child : children) child.kill();
      killed = true;
    }
    if (!all) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  result.seconds = steady_seconds() - start;
  for (auto& child : children) result.ranks.push_back(child.end());
  return result;
}

const char* const kLaunchVariables[] = {
    "RANK",        "WORLD_SIZE",  "LOCAL_RANK",       "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "TRIPTYCH_STORE_FD"};

Variables base_variables(const std::string& scenario, const Json& config) {
  Variables variables = {{"TRIPTYCH_TEST_SCENARIO", scenario},
                         {"TRIPTYCH_TEST_CONFIG", dump_json(config)},
                         {"OMP_NUM_THREADS", "1"}};
  for (const auto* name : kLaunchVariables) variables[name] = "";
  return variables;
}

}  // namespace

void add_scenario(const std::string& name, Scenario scenario) {
  scenarios()[name] = std::move(scenario);
}

int run_main(int argc, char** argv) {
  if (const char* name = std::getenv("TRIPTYCH_TEST_SCENARIO")) {
    const char* config = std::getenv("TRIPTYCH_TEST_CONFIG");
    try {
      return scenarios().at(name)(parse_json(config, "configuration of the test"));
    } catch (const std::exception& error) {
      std::cerr << "not caught by the scenario: " << error.what() << '\n';
      return 99;
    }
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

Port listen_somewhere() {
  Port port;
  port.socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(port.socket, generic, size) != 0 || ::listen(port.socket, 64) != 0 ||
      ::getsockname(port.socket, generic, &size) != 0) {
    throw std::runtime_error("no free port");
  }
  port.number = ntohs(address.sin_port);
  return port;
}

Started run_ranks(int count, const std::string& scenario, const Json& config, double limit_s,
                  Store store, const Variables& environment) {
  const Scratch folder;
  const Port port = listen_somewhere();
  if (store == Store::kByPort) ::close(port.socket);
  std::vector<Child> children;
  for (int rank = 0; rank < count; ++rank) {
    auto variables = base_variables(scenario, config);
    variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(rank);
    variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = std::to_string(count);
    variables["MASTER_ADDR"] = "127.0.0.1";
    variables["MASTER_PORT"] = std::to_string(port.number);
    const bool inherits = rank == 0 && store == Store::kInherited;
    if (inherits) variables["TRIPTYCH_STORE_FD"] = std::to_string(port.socket);
    for (const auto& [name, value] : environment) variables[name] = value;
    children.emplace_back(variables, folder / ("rank" + std::to_string(rank)),
                          inherits ? port.socket : -1);
  }
  if (store == Store::kInherited) ::close(port.socket);
  return wait_for(children, limit_s);
}

RankEnd run_alone(const std::string& scenario, const Json& config, double limit_s) {
  const Scratch folder;
  std::vector<Child> children;
  children.emplace_back(base_variables(scenario, config), folder / "output", -1);
  return wait_for(children, limit_s).ranks.front();
}

}  // namespace triptych::testing_ranks

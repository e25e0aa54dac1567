#include "ranks.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "support/scratch.h"

namespace triptych::testing_ranks {

namespace {

constexpr const char *kScenario = "TRIPTYCH_TEST_SCENARIO", *kConfig = "TRIPTYCH_TEST_CONFIG",
                     *kNursery = "TRIPTYCH_TEST_NURSERY";

std::map<std::string, Scenario>& scenarios() {
  static std::map<std::string, Scenario> all;
  return all;
}

using Variables = std::map<std::string, std::string>;

void set_variables(const Variables& variables) {
  for (const auto& [name, value] : variables)
    value.empty() ? ::unsetenv(name.c_str()) : ::setenv(name.c_str(), value.c_str(), 1);
}

/// The scenario that the environment names.
int run_scenario() {
  try {
    return scenarios().at(std::getenv(kScenario))(
        parse_json(std::getenv(kConfig), "configuration of the test"));
  } catch (const std::exception& error) {
    std::cerr << "not caught by the scenario: " << error.what() << '\n';
    return 99;
  }
}

/// One child; standard output and error go into a file.
class Child {
 public:
  /// @param without  a socket that it is not to have; -1: none
  Child(const Variables& variables, const std::filesystem::path& output, int without) {
    const auto parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    const int out = ::open(output.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_APPEND, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    if (without >= 0) ::close(without);
    set_variables(variables);
    std::exit(run_scenario());
  }

  bool poll() {
    if (status_ >= 0) return true;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }
  void kill() const { ::kill(pid_, SIGKILL); }
  int status() const { return status_; }

 private:
  pid_t pid_ = -1;
  int status_ = -1;
};

Json wait_for(std::vector<Child>& children, double limit_s) {
  const double start = steady_seconds();
  for (bool all = false, killed = false; !all;) {
    all = true;
    for (auto& child : children) all = child.poll() && all;
    if (!all && !killed && steady_seconds() - start > limit_s) {
      for (const auto& child : children) child.kill();
      killed = true;
    }
    if (!all) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  Json statuses = Json::array();
  for (const auto& child : children) statuses.push_back(child.status());
  return {{"seconds", steady_seconds() - start}, {"statuses", statuses}};
}

const char* const kLaunchVariables[] = {
    "RANK",        "WORLD_SIZE",  "LOCAL_RANK",       "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "TRIPTYCH_STORE_FD"};

std::filesystem::path output_of(const std::filesystem::path& folder, size_t rank) {
  return folder / ("rank" + std::to_string(rank));
}

/// In the nursery: starts what is asked for, waits, and says how it ended.
Json answer(const Json& request) {
  const std::filesystem::path folder = request.at("folder").get<std::string>();
  const auto count = request.at("count").get<int>();  // 0: one, without a launcher's variables
  const auto store = request.at("store").get<Store>();
  Variables common = {{kScenario, request.at("scenario").get<std::string>()},
                      {kConfig, request.at("config").get<std::string>()}};
  for (const auto* name : kLaunchVariables) common[name] = "";
  std::vector<Child> children;
  const auto limit_s = request.at("limit_s").get<double>();
  if (count == 0) {
    children.emplace_back(common, output_of(folder, 0), -1);
    return wait_for(children, limit_s);
  }
  const Port port = listen_somewhere();
  if (store == Store::kByPort) ::close(port.socket);
  for (int rank = 0; rank < count; ++rank) {
    auto variables = common;
    variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(rank);
    variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = std::to_string(count);
    variables["MASTER_ADDR"] = "127.0.0.1";
    variables["MASTER_PORT"] = std::to_string(port.number);
    const bool inherits = rank == 0 && store == Store::kInherited;
    if (inherits) variables["TRIPTYCH_STORE_FD"] = std::to_string(port.socket);
    for (const auto& [name, value] : request.at("environment").get<Variables>())
      variables[name] = value;
    const bool held = store == Store::kInherited && !inherits;
    children.emplace_back(variables, output_of(folder, static_cast<size_t>(rank)),
                          held ? port.socket : -1);
  }
  if (store == Store::kInherited) ::close(port.socket);
  return wait_for(children, limit_s);
}

/// Messages on a socket: eight bytes of length, then the text. @return empty at the end.
std::string receive(int socket) {
  uint64_t size = 0;
  if (::recv(socket, &size, sizeof size, MSG_WAITALL) != sizeof size) return "";
  std::string text(size, ' ');
  const auto got = ::recv(socket, text.data(), size, MSG_WAITALL);
  return got == static_cast<ssize_t>(size) ? text : "";
}

void send(int socket, const std::string& text) {
  const uint64_t size = text.size();
  const auto all = std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
  for (size_t sent = 0; sent < all.size();) {
    const auto part = ::send(socket, all.data() + sent, all.size() - sent, MSG_NOSIGNAL);
    if (part <= 0) throw std::runtime_error("the process that starts ranks has gone");
    sent += static_cast<size_t>(part);
  }
}

/// A copy of this program that has run nothing yet and forks the ranks: loading libtorch takes
/// longer than most ranks run, and this process may have threads, which a fork would lose.
class Nursery {
 public:
  Nursery() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error("no socket pair");
    socket_ = ends[0];
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::fcntl(ends[1], F_SETFD, 0);
      set_variables({{kNursery, std::to_string(ends[1])}, {"OMP_NUM_THREADS", "1"}});
      ::execl("/proc/self/exe", "nursery", nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
  }
  Nursery(const Nursery&) = delete;
  Nursery& operator=(const Nursery&) = delete;
  ~Nursery() {
    ::close(socket_);
    ::waitpid(pid_, nullptr, 0);
  }

  Json ask(const Json& request) {
    send(socket_, dump_json(request));
    return parse_json(receive(socket_), "answer of the process that starts ranks");
  }

  /// What the copy does.
  static int run(int socket) {
    ::unsetenv(kNursery);
    ::fcntl(socket, F_SETFD, FD_CLOEXEC);
    for (std::string text; text = receive(socket), !text.empty();)
      send(socket, dump_json(answer(parse_json(text, "request"))));
    return 0;
  }

 private:
  int socket_ = -1;
  pid_t pid_ = -1;
};

Started ask(int count, const std::string& scenario, const Json& config, double limit_s, Store store,
            const Variables& environment) {
  static Nursery nursery;
  const Scratch folder;
  const auto end = nursery.ask({{"count", count},
                                {"scenario", scenario},
                                {"config", dump_json(config)},
                                {"limit_s", limit_s},
                                {"store", store},
                                {"environment", environment},
                                {"folder", folder.path().string()}});
  Started started{.seconds = end.at("seconds")};
  for (const auto& status : end.at("statuses"))
    started.ranks.push_back({status, read_file(output_of(folder.path(), started.ranks.size()))});
  return started;
}

}  // namespace

void add_scenario(const std::string& name, Scenario scenario) {
  scenarios()[name] = std::move(scenario);
}

int run_main(int argc, char** argv) {
  if (const char* socket = std::getenv(kNursery)) return Nursery::run(std::stoi(socket));
  if (std::getenv(kScenario) != nullptr) return run_scenario();  // started by a rank
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
  return ask(count, scenario, config, limit_s, store, environment);
}

RankEnd run_alone(const std::string& scenario, const Json& config, double limit_s) {
  return ask(0, scenario, config, limit_s, Store::kByPort, {}).ranks.front();
}

}  // namespace triptych::testing_ranks

#include "parallel/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/format.h"
#include "base/log.h"
#include "parallel/launch_environment.h"
#include "parallel/store_listener.h"

extern char** environ;  // NOLINT: POSIX's own declaration

namespace triptych {

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kExitFailed = 1, kExitUsage = 2, kExitStopped = 75;

std::string last_error() { return std::strerror(errno); }

// The handler only writes the signal's number into a pipe that the loop polls.
int signal_pipe_write = -1;
void on_signal(int signal) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(signal);
  [[maybe_unused]] const auto written = ::write(signal_pipe_write, &byte, 1);
  errno = saved;
}

/// Routes the signals of a launcher into a pipe while it lives.
class SignalPipe {
 public:
  static constexpr std::array kSignals = {SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP};

  SignalPipe() {
    int ends[2];
    require(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "launcher: no pipe: ", last_error());
    read_ = Descriptor(ends[0]);
    write_ = Descriptor(ends[1]);
    signal_pipe_write = ends[1];
    for (size_t i = 0; i < kSignals.size(); ++i) {
      struct sigaction action{};
      action.sa_handler = on_signal;
      action.sa_flags = SA_RESTART;
      ::sigaction(kSignals[i], nullptr, &before_[i]);
      if (!stays_ignored(i)) ::sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~SignalPipe() {
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
    signal_pipe_write = -1;
  }
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

  /// In a worker before exec: what the handlers had taken over is as it was for any program.
  void reset_in_child() const {
    for (size_t i = 0; i < kSignals.size(); ++i) {
      if (!stays_ignored(i)) ::signal(kSignals[i], SIG_DFL);
    }
  }

  int fd() const { return read_.get(); }
  std::vector<int> take() const {
    std::vector<int> signals;
    unsigned char byte = 0;
    while (::read(read_.get(), &byte, 1) == 1) signals.push_back(byte);
    return signals;
  }

 private:
  /// nohup's wish, for the workers as well.
  bool stays_ignored(size_t i) const {
    return kSignals[i] == SIGHUP && before_[i].sa_handler == SIG_IGN;
  }

  Descriptor read_, write_;
  std::array<struct sigaction, kSignals.size()> before_{};
};

/// Passes on what a worker writes, whole lines at a time, with its rank in front.
class LinePrefixer {
 public:
  LinePrefixer(Descriptor from, int to, int64_t rank)
      : from_(std::move(from)), to_(to), prefix_("[rank " + std::to_string(rank) + "] ") {}

  int fd() const { return from_.get(); }
  /// Reads what is there; closes the descriptor at its end.
  void pump() {
    std::array<char, 1 << 14> buffer;
    while (fd() >= 0) {
      const auto got = ::read(fd(), buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) {
        if (!rest_.empty()) write_line(rest_ + "\n");
        rest_.clear();
        from_.reset();
        return;
      }
      rest_.append(buffer.data(), static_cast<size_t>(got));
      size_t begin = 0;
      for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
        write_line(std::string_view(rest_).substr(begin, end + 1 - begin));
      }
      rest_.erase(0, begin);
    }
  }

 private:
  void write_line(std::string_view line) const {
    // warnings and errors of the worker's own log already carry the rank
    const std::string text =
        (line.starts_with(prefix_) ? std::string() : prefix_) + std::string(line);
    for (size_t done = 0; done < text.size();) {
      const auto n = ::write(to_, text.data() + done, text.size() - done);
      if (n < 0 && errno != EINTR) return;
      if (n > 0) done += static_cast<size_t>(n);
    }
  }

  Descriptor from_;
  int to_;
  std::string prefix_, rest_;
};

struct Worker {
  int64_t rank = 0;
  pid_t pid = -1;
  bool running = false;
};

/// The environment of one worker: ours, with the launcher's variables replaced.
std::vector<std::string> worker_environment(const WorkerOptions& options, int64_t local_rank,
                                            const Listener& listener, int64_t restart) {
  const int64_t rank = options.node * options.processes + local_rank;
  std::vector<std::string> set = {
      fmt::format("RANK={}", rank),
      fmt::format("LOCAL_RANK={}", local_rank),
      fmt::format("WORLD_SIZE={}", options.nodes * options.processes),
      fmt::format("LOCAL_WORLD_SIZE={}", options.processes),
      fmt::format("MASTER_ADDR={}", options.nodes == 1 ? "127.0.0.1" : options.address),
      fmt::format("MASTER_PORT={}", listener.port),
      rank == 0 ? fmt::format("TRIPTYCH_STORE_FD={}", listener.socket.get())
                : std::string("TRIPTYCH_STORE_FD="),
      fmt::format("TRIPTYCH_RESTART={}", restart)};
  if (!process_variable("OMP_NUM_THREADS")) {
    set.push_back("OMP_NUM_THREADS=" +
                  std::to_string(threads_per_process(options.threads, options.processes)));
  }
  // OpenMP's threads spin for milliseconds at barriers by default, and keep a sibling from running
  // where cores are scarce (docs/decisions/0003-openmp.md).
  if (!process_variable("OMP_WAIT_POLICY") && !process_variable("GOMP_SPINCOUNT"))
    set.push_back("GOMP_SPINCOUNT=3000");
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto key = text.substr(0, text.find('=') + 1);
    if (std::none_of(set.begin(), set.end(), [&](const auto& s) { return s.starts_with(key); })) {
      set.emplace_back(text);
    }
  }
  return set;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (auto& s : strings) result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

std::string describe(const Worker& worker, int status) {
  const std::string who = "rank " + std::to_string(worker.rank);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    return who + " was killed by signal " + std::to_string(signal) + " (" + ::strsignal(signal) +
           ")" + (signal == SIGKILL ? "; if nobody sent it, the host may be out of memory" : "");
  }
  return who + " failed with status " + std::to_string(WEXITSTATUS(status)) +
         "; its message is above";
}

/// One start of all workers, until the last of them has ended.
class Crew {
 public:
  Crew(const WorkerOptions& options, std::span<const std::string> argv, int64_t restart,
       const SignalPipe& signals, const Listener& listener)
      : options_(options), signals_(signals) {
    for (int64_t local = 0; local < options.processes; ++local)
      start(local, argv, listener, restart);
  }
  ~Crew() { kill_all(SIGKILL); }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  /// @return the exit status of the whole; `signalled` becomes true when we were told to stop.
  int wait(bool& signalled) {
    while (running() > 0) {
      poll_once();
      for (const int signal : signals_.take()) {
        if (signal == SIGCHLD) continue;
        if (signal != SIGUSR2) {  // that saves and goes on
          signalled = true;
          stop_signals_.push_back(signal);
        }
        kill_all(signal);
      }
      reap();
      if (deadline_ && Clock::now() > *deadline_) {
        kill_all(SIGKILL);
        killed_ = true;  // what ends now does so because of us
        deadline_.reset();
      }
    }
    for (auto& line : lines_) line.pump();
    if (!failure_.empty()) log_error("{}; all ranks were stopped", failure_);
    if (!failure_.empty()) return failure_status_;
    return followers_ ? kExitFailed : stopped_ ? kExitStopped : 0;
  }

 private:
  void start(int64_t local_rank, std::span<const std::string> argv, const Listener& listener,
             int64_t restart) {
    const int64_t rank = options_.node * options_.processes + local_rank;
    std::vector<std::string> arguments(argv.begin(), argv.end());
    auto environment = worker_environment(options_, local_rank, listener, restart);
    const auto arguments_c = pointers(arguments), environment_c = pointers(environment);
    std::array<Descriptor, 2> read_ends, write_ends;  // standard output, standard error
    for (int i = 0; rank > 0 && i < 2; ++i) {
      int ends[2];
      require(::pipe2(ends, O_CLOEXEC) == 0, "launcher: no pipe for rank ", rank, ": ",
              last_error());
      read_ends[i] = Descriptor(ends[0]);
      write_ends[i] = Descriptor(ends[1]);
      ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    }
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    require(pid >= 0, "launcher: cannot start rank ", rank, ": ", last_error());
    if (pid == 0) {     // only async-signal-safe calls from here on
      ::setpgid(0, 0);  // a terminal's Ctrl-C reaches the workers once, through us
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(kExitFailed);
      signals_.reset_in_child();
      if (const int null = ::open("/dev/null", O_RDONLY); null >= 0) ::dup2(null, STDIN_FILENO);
      if (rank > 0) {
        ::dup2(write_ends[0].get(), STDOUT_FILENO);
        ::dup2(write_ends[1].get(), STDERR_FILENO);
      } else {
        ::fcntl(listener.socket.get(), F_SETFD, 0);  // rank 0 keeps the socket across exec
      }
      ::execve("/proc/self/exe", arguments_c.data(), environment_c.data());
      ::_exit(127);
    }
    ::setpgid(pid, pid);
    workers_.push_back({rank, pid, true});
    for (int i = 0; rank > 0 && i < 2; ++i) {
      lines_.emplace_back(std::move(read_ends[i]), i == 0 ? STDOUT_FILENO : STDERR_FILENO, rank);
    }
  }

  int64_t running() const {
    return std::count_if(workers_.begin(), workers_.end(), [](const auto& w) { return w.running; });
  }

  void kill_all(int signal) const {
    for (const auto& worker : workers_) {
      if (worker.running) ::kill(worker.pid, signal);
    }
  }

  void poll_once() {
    std::vector<pollfd> fds{{signals_.fd(), POLLIN, 0}};
    for (const auto& line : lines_) {
      if (line.fd() >= 0) fds.push_back({line.fd(), POLLIN, 0});
    }
    ::poll(fds.data(), fds.size(), deadline_ ? 100 : 1000);
    for (auto& line : lines_) line.pump();
  }

  /// Our first signal met a worker that had not taken signals over yet: nothing was lost.
  bool ended_too_early(int status) const {
    return stop_signals_.size() == 1 && WIFSIGNALED(status) &&
           WTERMSIG(status) == stop_signals_.front();
  }

  void reap() {
    for (auto& worker : workers_) {
      int status = 0;
      if (!worker.running || ::waitpid(worker.pid, &status, WNOHANG) != worker.pid) continue;
      worker.running = false;
      const int code = WIFEXITED(status)         ? WEXITSTATUS(status)
                       : ended_too_early(status) ? kExitStopped
                                                 : kExitFailed;
      stopped_ = stopped_ || code == kExitStopped;
      if (code == 0 || code == kExitStopped) continue;
      if (!deadline_) {
        deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                       std::chrono::duration<double>(options_.grace_s));
      }
      // the rank that failed may end after those that it took along: rank 0 lets the others go
      // first
      followers_ = followers_ || code == kStoppedByPeerStatus;
      if (code == kStoppedByPeerStatus || !failure_.empty() || killed_) continue;
      failure_ = describe(worker, status);
      failure_status_ = code;
    }
  }

  const WorkerOptions& options_;
  const SignalPipe& signals_;
  std::vector<Worker> workers_;
  std::vector<LinePrefixer> lines_;
  std::string failure_;  // the first by time
  int failure_status_ = kExitFailed;
  std::vector<int> stop_signals_;  // passed on so far
  bool stopped_ = false, followers_ = false, killed_ = false;
  std::optional<Clock::time_point> deadline_;
};

}  // namespace

int launch_workers(const WorkerOptions& options, std::span<const std::string> argv) {
  require<UsageError>(options.processes >= 1, "train: --nproc ", options.processes,
                      " must be at least 1");
  const SignalPipe signals;
  bool signalled = false;
  // Kept through restarts on several hosts: the others know this port.
  auto listener = listen_for_store(options);
  for (int64_t restart = 0;; ++restart) {
    if (restart > 0 && options.nodes == 1) listener = listen_for_store(options);
    const int status = Crew(options, argv, restart, signals, listener).wait(signalled);
    const bool failed = status != 0 && status != kExitStopped && status != kExitUsage;
    if (!failed || signalled || restart >= options.max_restarts) return status;
    const auto where = options.nodes > 1 ? fmt::format(" of host {}", options.node) : std::string();
    log_warning("starting all {} ranks{} again from the last checkpoint (restart {} of {})",
                options.processes, where, restart + 1, options.max_restarts);
  }
}

}  // namespace triptych

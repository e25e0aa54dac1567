#include "base/signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace triptych {
namespace {

// Reached from handlers, which get no object.
std::atomic<int> ends{0};          // SIGINT and SIGTERM so far
std::atomic<int> first_signal{0};  // that asked to stop
std::atomic<bool> save_wanted{false};
std::atomic<int> idle_status{-1};  // to end with while nothing is to be saved; -1: something is
std::atomic<const char*> idle_words{nullptr}, stop_words{nullptr};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr std::array<int, 5> kSignals = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP};
std::array<struct sigaction, kSignals.size()> before;

void say(const char* words) {
  const int saved = errno;
  if (words != nullptr && ::write(STDERR_FILENO, words, std::strlen(words)) < 0) {
    // nowhere to complain to
  }
  errno = saved;
}

void handle(int signal) {
  if (signal == SIGUSR2) {
    save_wanted = true;
    return;
  }
  if (const int status = idle_status; status >= 0) {
    say(idle_words);
    ::_exit(status);
  }
  int none = 0;
  if (first_signal.compare_exchange_strong(none, signal)) say(stop_words);
  // Slurm sends SIGUSR1 ahead of SIGTERM, a terminal that closes SIGHUP from its shell and again
  // from the kernel: the one that follows must not count as impatience.
  if (signal == SIGUSR1 || signal == SIGHUP) return;
  if (ends.fetch_add(1) + 1 >= 3) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

SignalFlags::SignalFlags(Until until, int status, const SignalWords& words) {
  idle_words = words.nothing_to_save;
  stop_words = words.stopping;
  idle_status = until == Until::kWorkBegins ? status : -1;
  ends = 0;
  first_signal = 0;
  save_wanted = false;
  struct sigaction action{};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;  // reads and writes under way are not disturbed
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before[i]);
    if (kSignals[i] == SIGHUP && before[i].sa_handler == SIG_IGN) continue;
    sigaction(kSignals[i], &action, nullptr);
  }
}

SignalFlags::~SignalFlags() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
}

void SignalFlags::work_begins() { idle_status = -1; }

StopRequest SignalFlags::stop() const {
  if (first_signal == 0) return StopRequest::kNone;
  return ends >= 2 ? StopRequest::kStopNow : StopRequest::kSaveAndStop;
}

const char* SignalFlags::stop_signal() const {
  switch (first_signal) {
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGHUP:
      return "SIGHUP";
    default:
      return "";
  }
}

bool SignalFlags::take_save_request() { return save_wanted.exchange(false); }

}  // namespace triptych

#include "base/signals.h"

#include <array>
#include <atomic>
#include <csignal>

namespace triptych {
namespace {

// Reached from handlers, which get no object.
std::atomic<int> ends{0};          // SIGINT and SIGTERM so far
std::atomic<int> first_signal{0};  // that asked to stop
std::atomic<bool> save_wanted{false};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr std::array<int, 4> kSignals = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
std::array<struct sigaction, 4> before;

void handle(int signal) {
  if (signal == SIGUSR2) {
    save_wanted = true;
    return;
  }
  int none = 0;
  first_signal.compare_exchange_strong(none, signal);
  // Slurm sends SIGUSR1 ahead of SIGTERM: the one that follows must not count as impatience.
  if (signal == SIGUSR1) return;
  if (ends.fetch_add(1) + 1 >= 3) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

SignalFlags::SignalFlags() {
  ends = 0;
  first_signal = 0;
  save_wanted = false;
  struct sigaction action{};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;  // reads and writes under way are not disturbed
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &before[i]);
}

SignalFlags::~SignalFlags() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
}

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
    default:
      return "";
  }
}

bool SignalFlags::take_save_request() { return save_wanted.exchange(false); }

}  // namespace triptych

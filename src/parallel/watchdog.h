#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "parallel/group_host.h"

namespace triptych {

/// Looks after one process of several from a thread of its own (docs/spec/parallelism.md, 9).
/// Every `poll_s` it publishes what this rank is doing, ends the process when another rank has
/// failed, and warns about a collective that takes long. A second thread ends the process when the
/// store does not answer any more: rank 0 hangs, or the network is cut, and then every other thread
/// may wait for it without end. Functions may be called from any thread.
class Watchdog {
 public:
  struct Options {
    int64_t rank = 0, world_size = 1;
    std::string host_name, address;
    double poll_s = 1, warn_after_s = 60;
    double store_limit_s = 60;   ///< the store is lost when it is silent for so long
    bool first_on_host = false;  ///< tells its host's console why the ranks there end
    int stopped_status = 1;      ///< exit status when another rank has failed
  };
  Watchdog(Options options, c10::intrusive_ptr<c10d::Store> store, std::shared_ptr<GroupHost> host);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Who is at fault for a collective that failed here. Takes a few beats: the others must have
  /// had time to say something, or to fall silent.
  struct Verdict {
    std::string text;     ///< the cause and the rank at fault
    std::string told_by;  ///< not empty: another rank failed first and has said so
  };
  Verdict find_culprit(const std::string& collective, const std::string& cause);

  /// @return false when another rank's failure came first.
  bool publish_failure(const std::string& reason);

  /// Says why this rank ends that did nothing wrong itself: on the console of rank 0, and by one
  /// rank of every other host.
  void say_stopped(const std::string& why) const;

  /// To be called before the end after a failure: rank 0, which holds the store, waits until the
  /// others know.
  void leave();

  void stop();

 private:
  /// What a rank last said about itself.
  struct State {
    int64_t rank = 0;
    std::string host, beat;
    int64_t step = 0;
    double open_s = -1;  ///< seconds in its oldest open collective; -1: in none
    std::string text;    ///< that collective, or the last one that ended
  };

  /// A rank that publishes nothing for so long is dead; a busy machine alone is not that slow.
  double silence_s() const { return std::max(3 * options_.poll_s, 2.0); }
  void run();
  void publish_state();
  State state(int64_t rank);
  std::vector<State> states();
  std::string first_failure();
  void warn_about(const std::string& collective, double open_s);
  void watch_store();
  /// What this rank is at, for the message of its end.
  std::string place() const;
  [[noreturn]] void end_process(const std::string& why);
  [[noreturn]] void end_without_store(const char* what);

  const Options options_;
  const c10::intrusive_ptr<c10d::Store> store_;
  const std::shared_ptr<GroupHost> host_;
  int64_t beat_ = 0;
  double warned_ = 0;
  std::mutex mutex_;  // of stopping_
  std::condition_variable wake_;
  bool stopping_ = false;
  bool leaving_ = false, store_watched_ = true;
  std::atomic<double> answered_{0};  ///< when the store last did, steady seconds
  std::thread thread_, store_thread_;
};

}  // namespace triptych

#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "parallel/group.h"

namespace triptych {

/// Sends on their way. Each keeps its tensor alive until it is out and no longer. On the CPU a
/// thread waits for them in order, as Gloo cannot be asked whether a send is done; on a device they
/// are asked whenever another one is added.
class SendQueue {
 public:
  explicit SendQueue(bool with_thread) : with_thread_(with_thread) {}
  /// Gives up what is still on its way.
  ~SendQueue();
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  void add(Pending send);
  /// Returns when all are out. @throws the error of one that failed.
  void finish();

 private:
  void wait_for_all();

  bool with_thread_;
  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Pending> sends_;
  Pending current_;
  bool busy_ = false, stopping_ = false;
  std::exception_ptr error_;
};

}  // namespace triptych

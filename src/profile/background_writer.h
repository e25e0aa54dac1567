#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace triptych {

/// Runs jobs one after another on a thread of lower priority, beside the steps.
class BackgroundWriter {
 public:
  BackgroundWriter() = default;
  ~BackgroundWriter();
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;

  /// @param job  must not throw.
  void add(std::function<void()> job);
  /// Returns when all jobs are done.
  void wait();
  bool busy();

 private:
  void run();

  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool busy_ = false, stopping_ = false;
};

}  // namespace triptych

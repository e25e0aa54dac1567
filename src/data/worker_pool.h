#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace triptych {

/// A fixed number of threads that run jobs; urgent ones first, otherwise in order of submission.
/// Any thread may submit. The destructor runs what is still queued, then joins: a job that should
/// not run any more must find that out itself.
class WorkerPool {
 public:
  enum class Urgency { kNormal, kUrgent };

  explicit WorkerPool(int64_t threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int64_t size() const { return static_cast<int64_t>(threads_.size()); }

  /// @param job must not throw.
  void submit(std::function<void()> job, Urgency urgency = Urgency::kNormal);

  /// Calls `body(i)` for i in [0, count) on the pool's threads and returns when all have returned.
  /// Not to be called from a job. @param body must not throw.
  void for_each(int64_t count, const std::function<void(int64_t)>& body);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> normal_, urgent_;
  bool closing_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace triptych

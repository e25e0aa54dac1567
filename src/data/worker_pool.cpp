#include "data/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace triptych {

WorkerPool::WorkerPool(int64_t threads) {
  for (int64_t i = 0; i < std::max<int64_t>(1, threads); ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void WorkerPool::submit(std::function<void()> job, Urgency urgency) {
  {
    const std::lock_guard lock(mutex_);
    (urgency == Urgency::kUrgent ? urgent_ : normal_).push_back(std::move(job));
  }
  wake_.notify_one();
}

void WorkerPool::for_each(int64_t count, const std::function<void(int64_t)>& body) {
  std::mutex mutex;
  std::condition_variable done;
  std::atomic<int64_t> next = 0;
  int64_t running = std::min(count, size());
  for (int64_t j = running; j > 0; --j) {
    submit(
        [&] {
          for (int64_t i = next++; i < count; i = next++) body(i);
          // Notified under the lock: the waiting side destroys both right after.
          const std::lock_guard lock(mutex);
          if (--running == 0) done.notify_one();
        },
        Urgency::kUrgent);
  }
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return running == 0; });
}

void WorkerPool::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return closing_ || !urgent_.empty() || !normal_.empty(); });
    auto& queue = urgent_.empty() ? normal_ : urgent_;
    if (queue.empty()) return;  // closing, and everything has run
    {
      const auto job = std::move(queue.front());
      queue.pop_front();
      lock.unlock();
      job();
    }
    lock.lock();
  }
}

}  // namespace triptych

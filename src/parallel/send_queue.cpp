#include "parallel/send_queue.h"

#include <utility>

namespace triptych {

SendQueue::~SendQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    current_.abort();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void SendQueue::add(Pending send) {
  const std::lock_guard lock(mutex_);
  if (!with_thread_) {
    while (!sends_.empty() && sends_.front().done()) {
      sends_.front().wait();
      sends_.pop_front();
    }
  } else if (!thread_.joinable()) {
    thread_ = std::thread([this] { wait_for_all(); });
  }
  sends_.push_back(std::move(send));
  changed_.notify_all();
}

void SendQueue::finish() {
  std::unique_lock lock(mutex_);
  if (!with_thread_) {
    for (auto& send : sends_) send.wait();
    sends_.clear();
    return;
  }
  changed_.wait(lock, [&] { return error_ || (sends_.empty() && !busy_); });
  if (error_) std::rethrow_exception(error_);
}

void SendQueue::wait_for_all() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !sends_.empty(); });
    if (stopping_) return;
    auto send = std::move(sends_.front());
    sends_.pop_front();
    current_ = send;
    busy_ = true;
    lock.unlock();
    std::exception_ptr failed;
    try {
      send.wait();
    } catch (...) {
      failed = std::current_exception();
    }
    lock.lock();
    current_ = {};
    busy_ = false;
    if (failed) error_ = failed;
    changed_.notify_all();
    if (failed) return;
  }
}

}  // namespace triptych

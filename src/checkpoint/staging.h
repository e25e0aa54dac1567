#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace triptych {

/// Tensors on their way to disk. A writing thread takes them one after another from the front while
/// their owner goes on reading them; before the owner changes them, it copies the rest from the
/// back. So a save that is faster than a step copies nothing.
class Staging {
 public:
  /// @param values  called once, by whichever thread needs the tensor first.
  /// @return the number to `take` it by.
  size_t add(std::function<at::Tensor()> values);
  /// A tensor whose memory nobody else holds is never copied; one of an accelerator is at once.
  size_t add(at::Tensor tensor);
  size_t size() const { return items_.size(); }

  /// The tensor of number `index`, for writing; `done` must follow. Writing thread.
  at::Tensor take(size_t index);
  /// Lets the tensor go. Writing thread.
  void done(size_t index);
  /// Lets everything go, e.g. after an error. Writing thread.
  void abandon();

  /// Returns when no live memory will be read any more. Owner's thread; uses all of libtorch's.
  /// @return bytes copied.
  int64_t copy_rest();

 private:
  enum class State : uint8_t { kWaiting, kWriting, kCopying, kSafe, kDone };
  struct Item {
    std::function<at::Tensor()> values;
    at::Tensor tensor;
    State state = State::kWaiting;
  };
  /// Puts a tensor that the owner may change freely from now on.
  void keep(Item& item, at::Tensor tensor);

  std::vector<Item> items_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace triptych

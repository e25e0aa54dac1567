#include "checkpoint/staging.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "checkpoint/host_memory.h"

namespace triptych {

namespace {

/// True when only this handle leads to the tensor's memory, so that nobody can change it.
bool exclusive(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.use_count() == 1 && tensor.storage().use_count() == 1;
}

void copy_bytes(const at::Tensor& from, const at::Tensor& to) {
  const auto* source = static_cast<const std::byte*>(from.const_data_ptr());
  auto* const target = static_cast<std::byte*>(to.data_ptr());
  at::parallel_for(0, static_cast<int64_t>(from.nbytes()), int64_t{1} << 20,
                   [&](int64_t begin, int64_t end) {
                     std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
                   });
}

/// From an accelerator to pageable memory by way of two page-locked buffers: while one is filled by
/// the device, the other is emptied. Page-locking all of it would take longer than the copy.
void copy_from_device(const at::Tensor& from, const at::Tensor& to) {
  constexpr int64_t kBufferBytes = int64_t{64} << 20;
  const c10::DeviceGuard guard(from.device());  // page-locked memory belongs to the current device
  const auto source = from.view({-1}), target = to.view({-1});
  const int64_t step =
      std::max<int64_t>(1, kBufferBytes / static_cast<int64_t>(from.element_size()));
  const int64_t blocks = (source.numel() + step - 1) / step;
  if (blocks <= 1) {
    target.copy_(source);
    return;
  }
  struct Half {
    at::Tensor buffer;
    c10::Event done;
  };
  std::array<Half, 2> halves = {Half{{}, c10::Event(from.device().type())},
                                Half{{}, c10::Event(from.device().type())}};
  for (auto& half : halves) half.buffer = at::empty({step}, target.options().pinned_memory(true));
  const c10::impl::VirtualGuardImpl device(from.device().type());
  const auto stream = device.getStream(from.device());
  const auto length = [&](int64_t i) { return std::min(step, source.numel() - i * step); };
  const auto start = [&](int64_t i) {
    auto& half = halves[static_cast<size_t>(i % 2)];
    half.buffer.narrow(0, 0, length(i))
        .copy_(source.narrow(0, i * step, length(i)), /*non_blocking=*/true);
    half.done.record(stream);
  };
  start(0);
  for (int64_t i = 0; i < blocks; ++i) {
    if (i + 1 < blocks) start(i + 1);
    auto& half = halves[static_cast<size_t>(i % 2)];
    half.done.synchronize();
    copy_bytes(half.buffer.narrow(0, 0, length(i)), target.narrow(0, i * step, length(i)));
  }
}

/// In host memory of its own.
at::Tensor private_copy(const at::Tensor& tensor) {
  const auto source = tensor.detach().contiguous();
  auto copy = at::empty(source.sizes(), source.options().device(at::kCPU));
  advise_huge_pages(copy);
  if (source.device().is_cpu()) {
    copy_bytes(source, copy);
  } else {
    copy_from_device(source, copy);
  }
  return copy;
}

}  // namespace

size_t Staging::add(std::function<at::Tensor()> values) {
  items_.push_back({.values = std::move(values)});
  return items_.size() - 1;
}

size_t Staging::add(at::Tensor tensor) {
  auto& item = items_.emplace_back();
  if (exclusive(tensor)) {
    item.tensor = std::move(tensor);
    item.state = State::kSafe;
  } else if (!tensor.device().is_cpu()) {
    item.tensor = private_copy(tensor);
    item.state = State::kSafe;
  } else {
    item.values = [tensor = std::move(tensor)] { return tensor; };
  }
  return items_.size() - 1;
}

at::Tensor Staging::take(size_t index) {
  auto& item = items_[index];
  std::function<at::Tensor()> values;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return item.state != State::kCopying; });
    if (item.state == State::kSafe) return item.tensor;
    item.state = State::kWriting;
    values = std::move(item.values);
  }
  return values();
}

void Staging::done(size_t index) {
  Item released;  // its memory is freed outside the lock
  {
    std::unique_lock lock(mutex_);
    auto& item = items_[index];
    changed_.wait(lock, [&] { return item.state != State::kCopying; });
    std::swap(released, item);
    item.state = State::kDone;
  }
  changed_.notify_all();
}

void Staging::abandon() {
  for (size_t i = 0; i < items_.size(); ++i) done(i);
}

void Staging::keep(Item& item, at::Tensor tensor) {
  {
    const std::lock_guard lock(mutex_);
    item.state = tensor.defined() ? State::kSafe : State::kWaiting;
    item.tensor = std::move(tensor);
    if (item.state == State::kSafe) item.values = {};
  }
  changed_.notify_all();
}

int64_t Staging::copy_rest() {
  int64_t bytes = 0;
  for (size_t i = items_.size(); i-- > 0;) {
    auto& item = items_[i];
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return item.state != State::kWriting; });
      if (item.state != State::kWaiting) continue;
      item.state = State::kCopying;
    }
    try {
      auto tensor = item.values();
      if (!exclusive(tensor)) {
        tensor = private_copy(tensor);
        bytes += static_cast<int64_t>(tensor.nbytes());
      }
      keep(item, std::move(tensor));
    } catch (...) {
      keep(item, {});  // left to the writing thread, which will meet the same error
      throw;
    }
  }
  return bytes;
}

}  // namespace triptych

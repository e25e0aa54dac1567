#include "checkpoint/staging.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "checkpoint/host_memory.h"

namespace triptych {

namespace {

/// True when only this handle leads to the tensor's memory, so that nobody can change it.
bool exclusive(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.use_count() == 1 && tensor.storage().use_count() == 1;
}

/// In host memory of its own.
at::Tensor private_copy(const at::Tensor& tensor) {
  const auto source = tensor.detach().contiguous();
  auto copy = at::empty(source.sizes(), source.options().device(at::kCPU));
  advise_huge_pages(copy);
  if (!source.device().is_cpu()) return copy.copy_(source);
  const auto* from = static_cast<const std::byte*>(source.const_data_ptr());
  auto* const to = static_cast<std::byte*>(copy.data_ptr());
  at::parallel_for(0, static_cast<int64_t>(source.nbytes()), int64_t{1} << 20,
                   [&](int64_t begin, int64_t end) {
                     std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
                   });
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

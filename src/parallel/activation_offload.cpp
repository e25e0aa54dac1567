#include "parallel/activation_offload.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/set.h>
#include <c10/core/Event.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/meta_memory.h"

namespace triptych {

namespace {

/// `bytes` bytes of a storage from `begin` on, as a tensor of bytes.
at::Tensor bytes_of(const c10::Storage& storage, int64_t begin, int64_t bytes) {
  auto view = at::empty({0}, at::TensorOptions(storage.device()).dtype(at::kByte));
  view.set_(storage, begin, {bytes}, {1});
  return view;
}

}  // namespace

/// The two directions, each with its stream where the device has streams.
class ActivationOffload::Transfers {
 public:
  Transfers(at::Device device, int64_t copies_behind)
      : device_(device), copies_behind_(static_cast<size_t>(copies_behind)) {
    if (device.is_cpu() || device.is_meta()) return;
    guard_.emplace(device.type());
    out_ = guard_->getStreamFromGlobalPool(device, /*isHighPriority=*/false);
    in_ = guard_->getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  }

  using Done = std::shared_ptr<c10::Event>;  ///< null: at once

  std::pair<at::Tensor, Done> to_host(const at::Tensor& bytes) {
    if (device_.is_meta()) {  // a plan: no memory of the device's
      const auto host = at::empty(bytes.sizes(), bytes.options());
      if (!planning_cpu_kernels()) forget_planned_memory(host);
      return {host, nullptr};
    }
    const auto options = at::TensorOptions(at::kCPU).dtype(at::kByte);
    if (!guard_) {
      auto host = at::empty(bytes.sizes(), options);
      host.copy_(bytes);
      return {host, nullptr};
    }
    auto host = at::empty(bytes.sizes(), options.pinned_memory(true));
    wait(record(guard_->getStream(device_)), *out_);
    {
      const c10::StreamGuard on(*out_);
      host.copy_(bytes, /*non_blocking=*/true);
    }
    bytes.record_stream(*out_);  // its memory is given away only after the copy
    const auto done = record(*out_);
    behind_.push_back(done);
    if (behind_.size() > copies_behind_) {
      wait(behind_.front(), guard_->getStream(device_));
      behind_.pop_front();
    }
    return {host, done};
  }

  std::pair<at::Tensor, Done> to_device(const at::Tensor& host, const Done& arrived) {
    const auto options = at::TensorOptions(device_).dtype(at::kByte);
    if (!guard_) {
      auto bytes = at::empty(host.sizes(), options);
      bytes.copy_(host);
      return {bytes, nullptr};
    }
    wait(arrived, *in_);
    const c10::StreamGuard on(*in_);
    auto bytes = at::empty(host.sizes(), options);
    bytes.copy_(host, /*non_blocking=*/true);
    return {bytes, record(*in_)};
  }

  /// What follows on this thread's stream may use `bytes`.
  void use(const at::Tensor& bytes, const Done& done) {
    if (!guard_ || !done) return;
    const auto stream = guard_->getStream(device_);
    wait(done, stream);
    bytes.record_stream(stream);
  }

 private:
  Done record(const c10::Stream& stream) const {
    auto event = std::make_shared<c10::Event>(device_.type());
    event->record(stream);
    return event;
  }
  static void wait(const Done& event, const c10::Stream& stream) {
    if (event) event->block(stream);
  }

  at::Device device_;
  size_t copies_behind_;
  std::optional<c10::impl::VirtualGuardImpl> guard_;
  std::optional<c10::Stream> out_, in_;
  std::deque<Done> behind_;
};

/// The copies of one layer's run.
struct ActivationOffload::Group {
  std::weak_ptr<Group> before;  ///< of the layer before; none for the first of a pass
  std::vector<std::weak_ptr<HostCopy>> copies;
  bool asked = false;
};

struct ActivationOffload::Shared {
  Shared(const OffloadSettings& settings) : transfers(settings.device, settings.copies_behind) {}

  std::recursive_mutex mutex;  ///< guards all of it; a copy may die while another is fetched
  Transfers transfers;
  OffloadCounts counts;
  std::deque<std::weak_ptr<Group>> passes;  ///< the last group of each, oldest first
};

class ActivationOffload::HostCopy {
 public:
  HostCopy(std::shared_ptr<Shared> shared, std::shared_ptr<Group> group, const at::Tensor& bytes)
      : shared_(std::move(shared)), group_(std::move(group)), size_(bytes.numel()) {
    const std::lock_guard lock(shared_->mutex);
    std::tie(host_, done_) = shared_->transfers.to_host(bytes);
    auto& counts = shared_->counts;
    ++counts.copies;
    counts.copied_bytes += size_;
    counts.bytes_held += size_;
    counts.most_bytes_held = std::max(counts.most_bytes_held, counts.bytes_held);
  }

  ~HostCopy() {
    const std::lock_guard lock(shared_->mutex);
    if (host_.defined()) shared_->counts.bytes_held -= size_;
  }
  HostCopy(const HostCopy&) = delete;
  HostCopy& operator=(const HostCopy&) = delete;

  /// The bytes on the device again.
  at::Tensor get() {
    const std::lock_guard lock(shared_->mutex);
    if (!group_->asked) fetch_groups();
    fetch(false);
    shared_->transfers.use(device_, done_);
    return device_;
  }

 private:
  /// The layer that backward has come to, and the one it comes to next.
  void fetch_groups() {
    fetch_group(*group_, false);
    if (const auto before = group_->before.lock()) {
      fetch_group(*before, true);
      return;
    }
    // The first layer of a pass: schedules take the oldest pass next.
    auto& passes = shared_->passes;
    while (!passes.empty()) {
      const auto next = passes.front().lock();
      if (next && !next->asked && next != group_) return fetch_group(*next, true);
      passes.pop_front();
    }
  }

  static void fetch_group(Group& group, bool ahead) {
    group.asked = group.asked || !ahead;
    // backward wants the last one first
    for (auto copy = group.copies.rbegin(); copy != group.copies.rend(); ++copy) {
      if (const auto held = copy->lock()) held->fetch(ahead);
    }
  }

  void fetch(bool ahead) {
    if (!host_.defined()) return;
    std::tie(device_, done_) = shared_->transfers.to_device(host_, done_);
    host_.reset();  // pinned memory is reused after the copy
    ++shared_->counts.fetches;
    shared_->counts.fetched_ahead += ahead ? 1 : 0;
    shared_->counts.bytes_held -= size_;
  }

  std::shared_ptr<Shared> shared_;
  std::shared_ptr<Group> group_;
  int64_t size_;
  at::Tensor host_, device_;  ///< one of them
  Transfers::Done done_;      ///< of the last copy
};

class ActivationOffload::Packed : public PackedTensor {
 public:
  Packed(std::shared_ptr<HostCopy> copy, const at::Tensor& tensor, int64_t offset)
      : copy_(std::move(copy)),
        sizes_(tensor.sizes().vec()),
        strides_(tensor.strides().vec()),
        options_(tensor.options()),
        offset_(offset) {}

  at::Tensor unpack() override {
    auto view = at::empty({0}, options_);
    view.set_(copy_->get().storage(), offset_, sizes_, strides_);
    return view;
  }

 private:
  std::shared_ptr<HostCopy> copy_;
  std::vector<int64_t> sizes_, strides_;
  at::TensorOptions options_;
  int64_t offset_;  ///< in elements
};

ActivationOffload::ActivationOffload(const OffloadSettings& settings)
    : settings_(settings), shared_(std::make_shared<Shared>(settings)) {
  begin_group(nullptr);
}

ActivationOffload::~ActivationOffload() = default;

void ActivationOffload::begin_group(std::shared_ptr<Group> before) {
  group_ = std::make_shared<Group>();
  group_->before = std::move(before);
}

void ActivationOffload::begin_pass() {
  std::erase_if(known_, [](const auto& entry) { return entry.second.copy.expired(); });
  begin_group(nullptr);
  const std::lock_guard lock(shared_->mutex);
  shared_->passes.emplace_back(group_);
}

void ActivationOffload::begin_layer() {
  begin_group(group_);
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->passes.empty()) shared_->passes.back() = group_;
}

std::unique_ptr<PackedTensor> ActivationOffload::pack(const at::Tensor& tensor) {
  const auto item = static_cast<int64_t>(tensor.element_size());
  if (tensor.device() != settings_.device ||
      tensor.numel() * item < std::max<int64_t>(settings_.least_bytes, 1))
    return nullptr;
  const at::NoGradGuard no_grad;
  int64_t elements = 1;  // from the first to the last one
  for (int64_t d = 0; d < tensor.dim(); ++d) elements += (tensor.size(d) - 1) * tensor.stride(d);
  const auto& storage = tensor.storage();
  Part part{.begin = 0, .bytes = static_cast<int64_t>(storage.nbytes())};
  if (part.bytes > 2 * elements * item) {
    // The same alignment as before: kernels may go another way on other addresses.
    const int64_t first = tensor.storage_offset() * item;
    part.begin = first / kAlignment * kAlignment;
    part.bytes = first + elements * item - part.begin;
  }
  auto& known = known_[storage.unsafeGetStorageImpl()];
  auto copy = known.copy.lock();
  const auto version = tensor._version();
  if (!copy || known.storage.expired() || known.version != version || known.part != part) {
    copy = std::make_shared<HostCopy>(shared_, group_, bytes_of(storage, part.begin, part.bytes));
    known = {
        .storage = storage.getWeakStorageImpl(), .version = version, .part = part, .copy = copy};
    const std::lock_guard lock(shared_->mutex);
    group_->copies.push_back(copy);
  }
  return std::make_unique<Packed>(std::move(copy), tensor,
                                  tensor.storage_offset() - part.begin / item);
}

OffloadCounts ActivationOffload::counts() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->counts;
}

}  // namespace triptych

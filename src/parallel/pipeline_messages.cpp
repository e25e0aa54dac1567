#include "parallel/pipeline_messages.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "kernels/memory_scope.h"
#include "parallel/process_context.h"

namespace triptych {

PipelineGroups pipeline_groups(ProcessContext& process, int64_t chunks) {
  PipelineGroups groups;
  groups.forward = &process.group(kPipelineGroup, "pipeline forward");
  groups.backward = &process.group(kPipelineGroup, "pipeline backward");
  const bool both_ways = chunks > 1 && process.mesh().size(MeshDim::kPipeline) == 2;
  groups.forward_round =
      both_ways ? &process.group(kPipelineGroup, "pipeline round forward") : groups.forward;
  groups.backward_round =
      both_ways ? &process.group(kPipelineGroup, "pipeline round backward") : groups.backward;
  groups.headers = &process.cpu_group(kPipelineGroup, "pipeline headers");
  for (auto* group : {groups.forward, groups.backward, groups.forward_round, groups.backward_round,
                      groups.headers})
    group->connect();
  return groups;
}

namespace {

// A field in a header: 0 absent, 1 there, 2 there and its gradient wanted; dtype; dims; sizes.
constexpr int64_t kMaxDims = 6, kWords = 3 + kMaxDims;

at::Tensor write_header(const std::vector<std::string>& fields, const Flow& flow) {
  const auto header = at::zeros({static_cast<int64_t>(fields.size()) * kWords}, at::kLong);
  auto* word = header.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < fields.size(); ++i, word += kWords) {
    const auto& value = flow.get(fields[i]);
    if (!value.defined()) continue;
    require(value.dim() <= kMaxDims, "pipeline: '", fields[i], "' has ", value.dim(),
            " dims; at most ", kMaxDims, " travel");
    word[0] = value.requires_grad() ? 2 : 1;
    word[1] = static_cast<int64_t>(value.scalar_type());
    word[2] = value.dim();
    std::copy(value.sizes().begin(), value.sizes().end(), word + 3);
  }
  return header;
}

std::vector<MessageField> read_header(const at::Tensor& header) {
  std::vector<MessageField> fields(static_cast<size_t>(header.numel() / kWords));
  const auto* word = header.const_data_ptr<int64_t>();
  for (auto& field : fields) {
    field.there = word[0] > 0;
    field.needs_gradient = word[0] == 2;
    field.shape.dtype = static_cast<at::ScalarType>(word[1]);
    field.shape.sizes.assign(word + 3, word + 3 + word[2]);
    word += kWords;
  }
  return fields;
}

at::Tensor empty_like(const TensorShape& shape, at::Device device) {
  const MemoryScope memory(MemoryPhase::kOther, MemoryKind::kCommunication);
  return at::empty(shape.sizes, at::TensorOptions().dtype(shape.dtype).device(device));
}

}  // namespace

/// Receives forward messages on a thread of its own. On a device only headers: tensors are received
/// by the caller's thread, in its stream.
class PipelineMessages::Receiver {
 public:
  explicit Receiver(const PipelineMessages& messages) : messages_(messages) {}

  ~Receiver() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      current_.abort();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void begin(std::vector<Address> incoming) {
    const std::lock_guard lock(mutex_);
    require(wanted_.empty() && ready_.empty(), "pipeline: messages of the last step are left over");
    wanted_.assign(incoming.begin(), incoming.end());
    if (!wanted_.empty() && !thread_.joinable()) thread_ = std::thread([this] { receive_all(); });
    changed_.notify_all();
  }

  std::vector<Flow::Entry> take(const Address& at) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || error_; });
    if (ready_.empty()) std::rethrow_exception(error_);
    auto message = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    lock.unlock();
    require(message.at == at, "pipeline: the message for stage ", message.at.stage,
            ", micro-batch ", message.at.micro_batch, " came where that for stage ", at.stage,
            ", micro-batch ", at.micro_batch, " was expected");
    if (!messages_.device_.is_cpu()) receive_tensors(message);
    std::vector<Flow::Entry> entries;
    for (size_t i = 0; i < message.fields.size(); ++i) {
      if (!message.fields[i].there) continue;
      entries.emplace_back(messages_.fields_[i],
                           message.tensors[i].set_requires_grad(message.fields[i].needs_gradient));
    }
    return entries;
  }

 private:
  struct Message {
    Address at;
    std::vector<MessageField> fields;
    std::vector<at::Tensor> tensors;  ///< a field each; undefined where it is not there
  };

  void wait_for(Pending pending) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      current_ = pending;
    }
    pending.wait();
    const std::lock_guard lock(mutex_);
    current_ = {};
  }

  void receive_header(Message& message) {
    const auto header =
        at::empty({static_cast<int64_t>(messages_.fields_.size()) * kWords}, at::kLong);
    wait_for(messages_.groups_.headers->receive_async(
        header, messages_.previous(), messages_.number(message.at, 0),
        fmt::format("header of micro-batch {}", message.at.micro_batch)));
    if (stopped()) return;
    message.fields = messages_.forecast_
                         ? messages_.forecast_(message.at.stage, message.at.micro_batch)
                         : read_header(header);
  }

  void receive_tensors(Message& message) {
    const auto& m = messages_;
    std::vector<Pending> pending;
    for (size_t i = 0; i < message.fields.size(); ++i) {
      auto& tensor = message.tensors.emplace_back();
      if (!message.fields[i].there) continue;
      tensor = empty_like(message.fields[i].shape, m.device_);
      if (tensor.numel() == 0) continue;
      pending.push_back(m.group_of(message.at.stage, true)
                            .receive_async(tensor, m.previous(), m.number(message.at, i),
                                           fmt::format("'{}' of micro-batch {}", m.fields_[i],
                                                       message.at.micro_batch)));
    }
    if (m.device_.is_cpu()) {
      for (auto& p : pending) wait_for(p);
    } else {
      for (auto& p : pending) p.wait();
    }
  }

  bool stopped() {
    const std::lock_guard lock(mutex_);
    return stopping_;
  }

  void receive_all() {
    try {
      while (true) {
        Message message;
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock,
                        [&] { return stopping_ || (!wanted_.empty() && ready_.size() < kAhead); });
          if (stopping_) return;
          message.at = wanted_.front();
          wanted_.pop_front();
        }
        receive_header(message);
        if (stopped()) return;
        if (messages_.device_.is_cpu()) receive_tensors(message);
        const std::lock_guard lock(mutex_);
        if (stopping_) return;
        ready_.push_back(std::move(message));
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
      changed_.notify_all();
    }
  }

  const PipelineMessages& messages_;
  std::thread thread_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Address> wanted_;
  std::deque<Message> ready_;
  Pending current_;
  std::exception_ptr error_;
  bool stopping_ = false;
};

PipelineMessages::PipelineMessages(const PipelineGroups& groups, std::vector<std::string> fields,
                                   int64_t rank, at::Device device, Forecast forecast)
    : groups_(groups),
      fields_(std::move(fields)),
      rank_(rank),
      device_(device),
      forecast_(std::move(forecast)),
      sends_(device.is_cpu()),
      receiver_(std::make_unique<Receiver>(*this)) {}

PipelineMessages::~PipelineMessages() = default;

int64_t PipelineMessages::number(const Address& at, size_t field) const {
  return (at.stage * micro_batches_ + at.micro_batch) * static_cast<int64_t>(fields_.size()) +
         static_cast<int64_t>(field);
}

int64_t PipelineMessages::next() const { return (rank_ + 1) % groups_.forward->size(); }
int64_t PipelineMessages::previous() const {
  return (rank_ + groups_.forward->size() - 1) % groups_.forward->size();
}

Group& PipelineMessages::group_of(int64_t stage, bool forward) const {
  // `stage` is the later end of the edge
  const bool round = stage % groups_.forward->size() == 0;
  if (forward) return round ? *groups_.forward_round : *groups_.forward;
  return round ? *groups_.backward_round : *groups_.backward;
}

void PipelineMessages::begin(std::vector<Address> incoming, int64_t micro_batches) {
  gradients_.clear();
  micro_batches_ = micro_batches;
  receiver_->begin(std::move(incoming));
}

std::vector<Flow::Entry> PipelineMessages::send_forward(const Address& to, const Flow& flow) {
  sends_.add(groups_.headers->send_async(write_header(fields_, flow), next(), number(to, 0),
                                         fmt::format("header of micro-batch {}", to.micro_batch)));
  std::vector<Flow::Entry> sent;
  for (size_t i = 0; i < fields_.size(); ++i) {
    const auto& value = flow.get(fields_[i]);
    if (!value.defined()) continue;
    sent.emplace_back(fields_[i], value);
    if (value.numel() == 0) continue;
    sends_.add(group_of(to.stage, true)
                   .send_async(value.detach().contiguous(), next(), number(to, i),
                               fmt::format("'{}' of micro-batch {}", fields_[i], to.micro_batch)));
  }
  return sent;
}

std::vector<Flow::Entry> PipelineMessages::take_forward(const Address& at) {
  const double begin = steady_seconds();
  auto entries = receiver_->take(at);
  waited_s_ += steady_seconds() - begin;
  return entries;
}

void PipelineMessages::send_backward(const Address& from,
                                     const std::vector<at::Tensor>& gradients) {
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (gradients[i].numel() == 0) continue;
    sends_.add(group_of(from.stage, false)
                   .send_async(gradients[i].contiguous(), previous(), number(from, i),
                               fmt::format("gradient {} of micro-batch {}", i, from.micro_batch)));
  }
}

void PipelineMessages::expect_backward(const Address& at, const std::vector<TensorShape>& shapes) {
  if (shapes.empty() || gradients_.contains(at)) return;
  auto& incoming = gradients_[at];
  const Address from{at.stage + 1, at.micro_batch};
  for (size_t i = 0; i < shapes.size(); ++i) {
    incoming.tensors.push_back(empty_like(shapes[i], device_));
    if (incoming.tensors.back().numel() == 0) continue;
    incoming.pending.push_back(
        group_of(from.stage, false)
            .receive_async(incoming.tensors.back(), next(), number(from, i),
                           fmt::format("gradient {} of micro-batch {}", i, at.micro_batch)));
  }
}

std::vector<at::Tensor> PipelineMessages::take_backward(const Address& at) {
  const auto it = gradients_.find(at);
  require(it != gradients_.end(), "pipeline: no gradient is expected for stage ", at.stage,
          ", micro-batch ", at.micro_batch);
  const double begin = steady_seconds();
  for (auto& pending : it->second.pending) pending.wait();
  waited_s_ += steady_seconds() - begin;
  auto tensors = std::move(it->second.tensors);
  gradients_.erase(it);
  return tensors;
}

void PipelineMessages::finish() { sends_.finish(); }

}  // namespace triptych

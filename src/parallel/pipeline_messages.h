#pragma once

// What goes between the pieces of a pipeline: the declared fields of a flow forward, their
// gradients back.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/group.h"
#include "parallel/layer.h"
#include "parallel/send_queue.h"

namespace triptych {

class ProcessContext;

/// A group for each direction, so that they never wait for one another, and, where two ranks are
/// each other's next and previous at once (two stages with chunks), one more for the way round from
/// the last rank to the first. Shapes go over the CPU.
struct PipelineGroups {
  Group* forward = nullptr;
  Group* backward = nullptr;
  Group* forward_round = nullptr;
  Group* backward_round = nullptr;
  Group* headers = nullptr;
};
/// Makes and connects them; all ranks call it at the same place.
PipelineGroups pipeline_groups(ProcessContext& process, int64_t chunks);

/// Shape and type of one travelling tensor; sender and receiver both know it.
struct TensorShape {
  std::vector<int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
};

/// What a message says of one of the declared fields.
struct MessageField {
  bool there = false, needs_gradient = false;
  TensorShape shape;
};
/// In a plan, where nobody sends: the fields that come to a virtual stage, in their order.
using Forecast = std::function<std::vector<MessageField>(int64_t stage, int64_t micro_batch)>;

/// Messages of one rank of a pipeline, addressed by the virtual stage that receives them and by
/// micro-batch. Which fields are there, and their shapes, may change with every micro-batch: a
/// header of fixed size says it. A thread of its own receives forward messages in the order of the
/// schedule (header, then tensors), so that nothing of this happens while compute waits, up to
/// `kAhead` messages before they are taken. Sends never block and let their tensor go once it is
/// out. Use from one thread.
class PipelineMessages {
 public:
  /// A place on the line of virtual stages.
  struct Address {
    int64_t stage = 0, micro_batch = 0;
    friend auto operator<=>(const Address&, const Address&) = default;
  };

  /// @param fields  names that may travel; the same on every rank.
  PipelineMessages(const PipelineGroups& groups, std::vector<std::string> fields, int64_t rank,
                   at::Device device, Forecast forecast = {});
  /// Ends the receiving thread, also one that waits for a message that will not come.
  ~PipelineMessages();
  PipelineMessages(const PipelineMessages&) = delete;
  PipelineMessages& operator=(const PipelineMessages&) = delete;

  /// Opens a step: forward messages will come to this rank in this order.
  void begin(std::vector<Address> incoming, int64_t micro_batches);

  /// Sends those of the declared fields that the flow has; detached, contiguous copies only where
  /// they are not contiguous. @return what was sent, in the order of the fields.
  std::vector<Flow::Entry> send_forward(const Address& to, const Flow& flow);
  /// The next of the incoming messages. A tensor requires grad where the sent one did.
  std::vector<Flow::Entry> take_forward(const Address& at);

  /// Gradients to the stage before `from`; `gradients` in the order of the fields that need one.
  void send_backward(const Address& from, const std::vector<at::Tensor>& gradients);
  /// Says that gradients of these shapes will come back to virtual stage `at`.
  void expect_backward(const Address& at, const std::vector<TensorShape>& shapes);
  std::vector<at::Tensor> take_backward(const Address& at);

  /// Waits until everything has been sent.
  void finish();

  /// Seconds spent waiting in `take_*` so far.
  double waited_s() const { return waited_s_; }

  static constexpr size_t kAhead = 2;

 private:
  struct Incoming {
    std::vector<at::Tensor> tensors;
    std::vector<Pending> pending;
  };
  class Receiver;

  int64_t number(const Address& at, size_t field) const;
  Group& group_of(int64_t stage, bool forward) const;
  int64_t previous() const;
  int64_t next() const;

  PipelineGroups groups_;
  std::vector<std::string> fields_;
  int64_t rank_, micro_batches_ = 0;
  at::Device device_;
  Forecast forecast_;
  SendQueue sends_;
  std::map<Address, Incoming> gradients_;
  double waited_s_ = 0;
  std::unique_ptr<Receiver> receiver_;
};

}  // namespace triptych

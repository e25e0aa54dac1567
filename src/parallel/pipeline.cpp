#include "parallel/pipeline.h"

#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "base/trace_scope.h"

namespace triptych {

std::string SlotRecord::name() const {
  return fmt::format("{}, stage {}, chunk {}, micro-batch {}", name_of(slot.kind), rank, slot.chunk,
                     slot.micro_batch);
}

namespace {
/// "F stage s chunk v micro-batch m" with the virtual stage; empty outside of a window.
std::string trace_name(const Slot& slot, int64_t virtual_stage) {
  if (trace_sink() == nullptr) return {};
  constexpr const char* kLetters = "FBIW";
  return fmt::format("{} stage {} chunk {} micro-batch {}", kLetters[static_cast<int>(slot.kind)],
                     virtual_stage, slot.chunk, slot.micro_batch);
}
}  // namespace

/// The graph is held by its edges: a sent tensor itself goes when its message is out.
struct Pipeline::InFlight {
  torch::autograd::edge_list outputs;  ///< of what was sent with a gradient to come, or the loss
  std::vector<TensorShape> shapes;     ///< of these gradients; empty on the last virtual stage
  at::Tensor loss_gradient;            ///< on the last virtual stage
  std::vector<at::Tensor> inputs;      ///< received tensors that need a gradient
};

Pipeline::Pipeline(PipelineSettings settings, const PipelineGroups& groups)
    : settings_(std::move(settings)),
      messages_(groups, settings_.fields, settings_.rank, settings_.device, settings_.forecast) {
  if (settings_.shape.order == PipelineOrder::kZeroBubbleH1)
    weight_gradients_ = std::make_shared<WeightGradients>();
}

Pipeline::~Pipeline() = default;

Pipeline::Address Pipeline::address(const Slot& slot) const {
  return {slot.chunk * settings_.shape.stages + settings_.rank, slot.micro_batch};
}

void Pipeline::run(const PipelineWork& work, int64_t micro_batches) {
  auto shape = settings_.shape;
  shape.micro_batches = micro_batches;
  run_slots(work, stage_schedule(shape, settings_.rank), micro_batches);
}

void Pipeline::run_forward(const PipelineWork& work, int64_t micro_batches) {
  const at::NoGradGuard no_grad;
  auto shape = settings_.shape;
  shape.micro_batches = micro_batches;
  run_slots(work, forward_schedule(shape, settings_.rank), micro_batches);
  in_flight_.clear();
}

void Pipeline::run_slots(const PipelineWork& work, const SlotList& slots, int64_t micro_batches) {
  const auto computes = [&](const Slot& slot) {
    return !work.computes || work.computes(slot.micro_batch);
  };
  std::vector<Address> incoming;
  for (const auto& slot : slots) {
    if (slot.kind == SlotKind::kForward && address(slot).stage > 0 && computes(slot))
      incoming.push_back(address(slot));
  }
  flows_.clear();  // of a step that an error has ended
  in_flight_.clear();
  put_off_.clear();
  if (weight_gradients_) weight_gradients_->collect_into(nullptr);
  messages_.begin(std::move(incoming), micro_batches);

  // The slot after which a chunk's gradients are complete: its last one that is no forward.
  std::vector<size_t> last(static_cast<size_t>(settings_.shape.chunks), slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].kind != SlotKind::kForward) last[static_cast<size_t>(slots[i].chunk)] = i;
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& slot = slots[i];
    if (computes(slot)) {
      // The next slot's gradients are asked for as well, so that they travel beside this slot.
      expect_gradients(slot);
      if (i + 1 < slots.size() && computes(slots[i + 1])) expect_gradients(slots[i + 1]);
      SlotRecord record{.slot = slot, .rank = settings_.rank, .begin_s = steady_seconds()};
      const double waited = messages_.waited_s();
      run_slot(work, slot);
      record.end_s = steady_seconds();
      record.waited_s = messages_.waited_s() - waited;
      if (work.observe) work.observe(record);
    }
    if (work.slot_done) work.slot_done(slot, computes(slot));
    if (last[static_cast<size_t>(slot.chunk)] == i && work.chunk_done) work.chunk_done(slot.chunk);
  }
  messages_.finish();
}

void Pipeline::run_slot(const PipelineWork& work, const Slot& slot) {
  if (slot.kind == SlotKind::kForward) return forward(work, slot);
  if (slot.kind != SlotKind::kBackwardWeight) return backward(slot);
  const auto it = put_off_.find(address(slot));
  if (it == put_off_.end()) return;
  const TraceScope trace(trace_name(slot, address(slot).stage));
  for (auto& product : it->second) {
    product();
    product = nullptr;  // frees what it needed
  }
  put_off_.erase(it);
}

Flow Pipeline::base_flow(const PipelineWork& work, const Slot& slot) {
  auto it = flows_.find(slot.micro_batch);
  if (it == flows_.end())
    it = flows_.emplace(slot.micro_batch, work.make_flow(slot.micro_batch)).first;
  if (slot.chunk + 1 < settings_.shape.chunks) return it->second;
  auto flow = std::move(it->second);  // the last use
  flows_.erase(it);
  return flow;
}

void Pipeline::forward(const PipelineWork& work, const Slot& slot) {
  const auto at = address(slot);
  auto flow = base_flow(work, slot);
  auto& kept = in_flight_[at];
  if (at.stage > 0) {
    for (auto& [name, value] : messages_.take_forward(at)) {
      if (value.requires_grad()) kept.inputs.push_back(value);
      flow.set(name, std::move(value));
    }
  }
  const TraceScope trace(trace_name(slot, address(slot).stage));
  work.run_layers(slot.chunk, slot.micro_batch, flow);
  if (at.stage + 1 == settings_.shape.virtual_stages()) {
    const auto loss = work.loss(slot.micro_batch, flow);
    if (!loss.requires_grad()) return;
    kept.outputs.push_back(torch::autograd::impl::gradient_edge(loss));
    kept.loss_gradient = at::ones_like(loss);
    return;
  }
  for (const auto& [name, value] : messages_.send_forward({at.stage + 1, at.micro_batch}, flow)) {
    if (!value.requires_grad()) continue;
    kept.outputs.push_back(torch::autograd::impl::gradient_edge(value));
    kept.shapes.push_back({value.sizes().vec(), value.scalar_type()});
  }
}

void Pipeline::expect_gradients(const Slot& slot) {
  if (slot.kind != SlotKind::kBackward && slot.kind != SlotKind::kBackwardInput) return;
  const auto it = in_flight_.find(address(slot));
  if (it != in_flight_.end()) messages_.expect_backward(it->first, it->second.shapes);
}

void Pipeline::backward(const Slot& slot) {
  const auto at = address(slot);
  auto kept = std::move(in_flight_.at(at));
  in_flight_.erase(at);
  std::vector<at::Tensor> gradients;
  if (!kept.outputs.empty())
    gradients = kept.loss_gradient.defined() ? std::vector{kept.loss_gradient}
                                             : messages_.take_backward(at);
  const TraceScope trace(trace_name(slot, address(slot).stage));
  if (!kept.outputs.empty()) {
    if (slot.kind == SlotKind::kBackwardInput) weight_gradients_->collect_into(&put_off_[at]);
    torch::autograd::Engine::get_default_engine().execute(kept.outputs, gradients,
                                                          /*keep_graph=*/false,
                                                          /*create_graph=*/false,
                                                          /*accumulate_grad=*/true);
    if (weight_gradients_) weight_gradients_->collect_into(nullptr);
  }
  if (kept.inputs.empty()) return;
  // Also where nothing flowed back: the stage before waits for what it was promised.
  std::vector<at::Tensor> to_send;
  for (const auto& input : kept.inputs) {
    const auto& gradient = input.grad();
    to_send.push_back(gradient.defined() ? gradient : at::zeros_like(input.detach()));
  }
  messages_.send_backward(at, to_send);
}

}  // namespace triptych

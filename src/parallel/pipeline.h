#pragma once

// Runs a step's micro-batches through the pieces of a model that the ranks of a pipeline hold, in
// the order of a schedule.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/layer.h"
#include "parallel/pipeline_messages.h"
#include "parallel/schedule.h"
#include "parallel/weight_gradients.h"

namespace triptych {

struct PipelineSettings {
  PipelineShape shape;              ///< its micro_batches are given to `run`
  int64_t rank = 0;                 ///< place on the line
  std::vector<std::string> fields;  ///< of the flow, that travel from stage to stage
  at::Device device = at::kCPU;
  Forecast forecast = {};  ///< only in a plan
};

/// A slot as it ran, in steady seconds. `waited_s` of it were spent waiting for its message.
struct SlotRecord {
  Slot slot;
  int64_t rank = 0;
  double begin_s = 0, end_s = 0, waited_s = 0;
  std::string name() const;  ///< "forward, stage 1, chunk 0, micro-batch 3"
};

/// What the pipeline asks of the one who trains. Micro-batches are numbered within the step; all
/// ranks of a line must answer alike.
struct PipelineWork {
  /// False: nothing of this micro-batch is computed or sent. Empty: all are computed.
  std::function<bool(int64_t micro_batch)> computes;
  /// The flow of the first layer, without what only layers of other ranks read; made once a rank.
  std::function<Flow(int64_t micro_batch)> make_flow;
  /// Runs the layers of one of this rank's chunks.
  std::function<void(int64_t chunk, int64_t micro_batch, Flow& flow)> run_layers;
  /// On the last virtual stage: what backward starts from.
  std::function<at::Tensor(int64_t micro_batch, const Flow& flow)> loss;
  /// After each slot, also of a micro-batch that is not computed; may be empty.
  std::function<void(const Slot& slot, bool computed)> slot_done;
  /// No more gradients will come for the parameters of this chunk in this step; may be empty.
  std::function<void(int64_t chunk)> chunk_done;
  /// Called after each slot; may be empty.
  std::function<void(const SlotRecord&)> observe;
};

/// The executor of one rank.
///
/// Every rank makes a micro-batch's flow itself; only the declared fields travel, whichever of them
/// a micro-batch has, each with its own shape. Between its forward and its backward a rank keeps
/// the graph and the received tensors; what it has sent is held by the message alone. A tensor that
/// needs no gradient is sent without one coming back, so frozen first stages do no backward.
/// Gradients of micro-batches are summed in their order, as in one process.
///
/// Each slot is also a range of that name in a profiler's trace.
class Pipeline {
 public:
  Pipeline(PipelineSettings settings, const PipelineGroups& groups);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// Forward and backward of all micro-batches of a step.
  void run(const PipelineWork& work, int64_t micro_batches);
  /// Forward alone, without gradients.
  void run_forward(const PipelineWork& work, int64_t micro_batches);

  /// Where the layers of this rank put weight gradients off to; null for schedules that do not
  /// part them (Parameter::weight_gradients).
  const std::shared_ptr<WeightGradients>& weight_gradients() const { return weight_gradients_; }
  const PipelineSettings& settings() const { return settings_; }

 private:
  using Address = PipelineMessages::Address;
  struct InFlight;  ///< of one micro-batch in one chunk, from forward to backward

  void run_slots(const PipelineWork& work, const SlotList& slots, int64_t micro_batches);
  void run_slot(const PipelineWork& work, const Slot& slot);
  void forward(const PipelineWork& work, const Slot& slot);
  void backward(const Slot& slot);
  void expect_gradients(const Slot& slot);
  Address address(const Slot& slot) const;
  Flow base_flow(const PipelineWork& work, const Slot& slot);

  PipelineSettings settings_;
  PipelineMessages messages_;
  std::shared_ptr<WeightGradients> weight_gradients_;
  std::map<int64_t, Flow> flows_;  ///< of micro-batches that have chunks of this rank before them
  std::map<Address, InFlight> in_flight_;
  std::map<Address, WeightGradients::Work> put_off_;
};

}  // namespace triptych

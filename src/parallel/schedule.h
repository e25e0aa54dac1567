#pragma once

// Pipeline schedules as data: what each rank computes in which order, and a simulator that replays
// all ranks' lists without a tensor. docs/spec/parallelism.md, section 4.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace triptych {

enum class PipelineOrder { k1F1B, kZeroBubbleH1 };
constexpr std::array<std::string_view, 2> option_names(PipelineOrder) { return {"1f1b", "zb_h1"}; }

/// A pipeline of `stages` ranks, each with `chunks` pieces of the model: piece number
/// chunk * stages + rank. One piece of the model is called a virtual stage.
struct PipelineShape {
  int64_t stages = 1;
  int64_t chunks = 1;         ///< v; above 1 the schedule is interleaved 1F1B
  int64_t micro_batches = 1;  ///< of one step
  int64_t group = 0;          ///< micro-batches that go through a chunk together; 0 = stages
  PipelineOrder order = PipelineOrder::k1F1B;

  int64_t virtual_stages() const { return stages * chunks; }
  int64_t group_size() const { return group > 0 ? group : stages; }
};

/// Rules M13 and M14, and what zb_h1 and the group size need. With one stage nothing is checked but
/// M14.
void validate(const PipelineShape& shape, Problems& problems);

enum class SlotKind : uint8_t { kForward, kBackward, kBackwardInput, kBackwardWeight };
const char* name_of(SlotKind kind);

/// One piece of work of a rank: a micro-batch through one of its chunks. `kBackward` is input and
/// weight gradients at once.
struct Slot {
  SlotKind kind = SlotKind::kForward;
  int64_t micro_batch = 0, chunk = 0;
  friend bool operator==(const Slot&, const Slot&) = default;
};
using SlotList = std::vector<Slot>;

/// The slots of one rank in order.
///  - 1F1B (arXiv:2104.04473): rank r runs p - r - 1 forwards ahead, then one forward and one
///    backward in turn; at most p - r micro-batches are in flight.
///  - interleaved 1F1B (the same): groups of micro-batches go through chunk 0, then chunk 1, ...
///  - ZB-H1 (arXiv:2401.10241): as 1F1B with the weight gradients r slots behind, in what would be
///    the bubble; as many micro-batches hold activations as on rank 0 of 1F1B.
SlotList stage_schedule(const PipelineShape& shape, int64_t rank);
/// Forwards only, for validation: micro-batches in order, each through the chunks in order.
SlotList forward_schedule(const PipelineShape& shape, int64_t rank);

/// Durations of the work of one virtual stage; all of them alike.
struct SlotTimes {
  double forward = 1, backward_input = 1, backward_weight = 1;
  double transfer = 0;  ///< from the end of a slot to the start of the one that needs its result
  double of(SlotKind kind) const;
};

struct SimulatedSlot {
  Slot slot;
  double begin = 0, end = 0;
};

struct Simulation {
  double makespan = 0;  ///< from the first slot's begin to the last one's end
  /// Idle time of a rank relative to its work: makespan / work - 1, the mean of those that have
  /// any.
  double bubble = 0;
  std::vector<int64_t> peak_in_flight;  ///< a rank: forwards whose activations are still held
  std::vector<std::vector<SimulatedSlot>> slots;  ///< a rank
};

/// Replays the ranks' lists; a slot starts when its rank is free and what it needs has arrived.
/// @throws Error  on a deadlock, naming the slots that wait.
Simulation simulate(const PipelineShape& shape, const std::vector<SlotList>& lists,
                    const SlotTimes& times);
Simulation simulate(const PipelineShape& shape, const SlotTimes& times);
/// The same where virtual stages take different times.
/// @param times  one a virtual stage; a message takes `transfer` of the stage that sends it
Simulation simulate(const PipelineShape& shape, std::span<const SlotTimes> times);

/// What the bubble of the schedule is in theory, in the measure of Simulation::bubble and without
/// transfers: (p - 1) (F + I + W) / (m v (F + I + W)), and for ZB-H1 (p - 1) (F + I - W) / ....
double bubble_formula(const PipelineShape& shape, const SlotTimes& times);

}  // namespace triptych

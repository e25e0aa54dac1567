#pragma once

// What one rank's step takes, term by term. Internal to this folder: predict_step adds it up over
// the stages of a pipeline, explain_step prints it.

#include <string>
#include <vector>

#include "parallel/collective_log.h"
#include "plan/machine.h"
#include "plan/run_plan.h"
#include "train/run_options.h"

namespace triptych {

/// Flop of a rank's step over all micro-batches, by the kernels that compute them.
struct RankFlop {
  double products = 0, attention_forward = 0, attention_backward = 0;
  double recomputed = 0;  ///< of both; counted in the others already
};

/// Exchanges that are hidden by the same compute.
struct Overlap {
  double total = 0, hidden = 0;
  double exposed() const { return total - hidden; }
};

/// Seconds of a rank's step without the other stages of its pipeline.
struct RankTime {
  RankFlop flop;
  double products = 0, attention = 0, memory = 0, launches = 0;
  Overlap layers;   ///< exchanges inside layers: tensor, Ulysses, pictures
  Overlap ring;     ///< keys, values and their gradients on their way around
  Overlap offload;  ///< activations to the host and back
  double pipeline = 0, gradients = 0, weights = 0;
  double states = 0;       ///< read and written by the update
  double host_states = 0;  ///< brought from the host's memory and back
  double forward = 0, backward = 0, weight_gradients = 0;  ///< products and attention in them
  /// Products and attention of one micro-batch in each chunk.
  std::vector<SlotTimes> chunks;

  double compute() const { return products + attention; }
  double update() const { return states + host_states; }
  /// What the rank itself has to do before gradients are exchanged.
  double busy() const {
    return compute() + memory + launches + layers.exposed() + ring.exposed() + offload.exposed();
  }
};

RankTime time_of_rank(const RunOptions& options, const RunPlan& plan, const RankPlan& rank,
                      const Machine& machine);

double exchange_seconds(const std::string& operation, const Traffic& traffic,
                        const Machine& machine);

}  // namespace triptych

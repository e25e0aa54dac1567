#pragma once

// From what the ranks of a plan compute, make and exchange to the time of a step.

#include <map>
#include <string>

#include "plan/machine.h"
#include "plan/run_plan.h"

namespace triptych {

/// Where the time of one optimizer step goes, in seconds; the parts of the slowest rank.
struct StepTime {
  double step = 0;
  double compute = 0;    ///< matrix products and attention, recomputation included
  double memory = 0;     ///< reading and writing what operators make
  double launches = 0;   ///< what eager launching adds where kernels are short
  double layers = 0;     ///< exposed exchanges inside layers: tensor, Ulysses, the rest of the ring
  double bubble = 0;     ///< stages that wait
  double gradients = 0;  ///< exposed exchanges of gradients and weights
  double optimizer = 0;  ///< reading and writing states
  double hidden = 0;     ///< exchanges behind compute: not part of the step
  double bubble_share = 0;  ///< idle time relative to work, by the simulated schedule
  double bubble_formula = 0;
  double mfu = 0;                ///< model flop without recomputation, of the peak
  double tokens_per_second = 0;  ///< over all devices
  /// By "group operation": of the busiest rank.
  std::map<std::string, double> exchanges;
};

/// The model, term by term:
///  - a slot's compute: its layers' flop on this rank / (peak x efficiency);
///  - memory: every tensor made is written once and read twice / (bandwidth x its efficiency);
///  - if launching all kernels takes longer than both, that instead;
///  - exchanges: bytes a rank sends / bandwidth + a latency for each hop, within a host or across;
///    those inside layers are exposed but for the ring's, of which attention hides what it can;
///  - the pipeline by its simulated schedule with each stage's own times;
///  - gradients: what four fifths of the last micro-batch's backward do not hide; with ZeRO-2 and 3
///    of every backward;
///  - weights gathered after the update: exposed; parameters of ZeRO-3 gathered ahead: what four
///    fifths of the products do not hide;
///  - the optimizer: states and weights read and written once.
/// `plan` must hold a rank of every pipeline stage.
StepTime predict_step(const RunOptions& options, const RunPlan& plan, const Machine& machine);

}  // namespace triptych

#pragma once

// From what the ranks of a plan compute, make and exchange to the time of a step.

#include <map>
#include <string>
#include <vector>

#include "plan/machine.h"
#include "plan/run_plan.h"

namespace triptych {

/// Where the time of one optimizer step goes, in seconds; the parts of the slowest rank.
struct StepTime {
  double step = 0;
  double compute = 0;    ///< matrix products and attention, recomputation included
  double attention = 0;  ///< of it
  double memory = 0;     ///< reading and writing what operators make
  double launches = 0;   ///< what eager launching adds where kernels are short
  double layers = 0;     ///< exposed exchanges inside layers: tensor, Ulysses, the rest of the ring
  double offload = 0;    ///< exposed copies of activations to the host and back
  double bubble = 0;     ///< stages that wait
  double gradients = 0;  ///< exposed exchanges of gradients and weights
  double optimizer = 0;  ///< reading and writing states, fetching them from the host
  double data = 0;       ///< waiting for samples
  double hidden = 0;     ///< exchanges behind compute: not part of the step
  double bubble_share = 0;  ///< idle time relative to work, by the simulated schedule
  double bubble_formula = 0;
  double mfu = 0;                ///< model flop without recomputation, of the peak
  double hfu = 0;                ///< the same with what is computed again
  double tokens_per_second = 0;  ///< over all devices
  int64_t slowest_rank = 0;      ///< whose parts these are
  /// By "group operation": of the busiest rank.
  std::map<std::string, double> exchanges;
};

/// The model, term by term (docs/spec/parallelism.md, 11.4):
///  - a slot's compute: its layers' flop on this rank / (peak x efficiency), with an efficiency for
///    matrix products and one for each direction of attention;
///  - memory: every tensor made is written once and read twice / (bandwidth x its efficiency);
///  - if launching all kernels takes longer than both, that instead; on a CPU beside them;
///  - exchanges: bytes a rank sends / bandwidth + a latency for each hop, within a host or across,
///    or as measured. Of those inside layers backward's run beside weight gradients
///    (`parallel.overlap`); the ring's hops run beside the attention to the part at hand;
///  - copies of activations to the host run beside forward, those back beside backward;
///  - the pipeline by its simulated schedule with each stage's own times;
///  - gradients: what four fifths of the last micro-batch's backward do not hide; with ZeRO-2 and 3
///    of every backward;
///  - weights gathered after the update: exposed; parameters of ZeRO-3 gathered ahead: what four
///    fifths of the products do not hide;
///  - the optimizer: states and weights read and written once, and brought from the host and back;
///  - data: what the loader's workers take longer than all that.
/// `plan` must hold a rank of every pipeline stage.
StepTime predict_step(const RunOptions& options, const RunPlan& plan, const Machine& machine);

/// One term of the sum, of the slowest rank.
struct CostTerm {
  std::string name;
  double seconds = 0;
  std::string how;      ///< the formula with its numbers
  bool in_step = true;  ///< false: hidden, or a part of another
};
/// Every term of a prediction.
/// @param time  predict_step's result for the same arguments
std::vector<CostTerm> explain_step(const RunOptions& options, const RunPlan& plan,
                                   const Machine& machine, const StepTime& time);

}  // namespace triptych

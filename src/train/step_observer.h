#pragma once

// Those who look at a run from beside it: profiler, memory recorder. They never change a step.

#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace triptych {

class ProcessContext;
struct LoadedModel;
struct RunOptions;

/// What is known of a run once its model is there.
struct RunFacts {
  const LoadedModel& model;
  int64_t first_step = 1;  ///< the next one, numbered as in metrics.jsonl
  int64_t last_step = 0;
};

/// What a step computed.
struct StepWork {
  double flop = 0;                  ///< of the model, over all ranks
  double peak_flop_per_second = 0;  ///< of one rank's device, as measured
};

/// Calls come from the main thread of every rank, in this order. A run that ends by an error calls
/// `run_ends` alone. None of them may start a collective except where it says so.
class StepObserver {
 public:
  virtual ~StepObserver() = default;

  /// Before anything of the model exists.
  virtual void run_opens() {}
  virtual void model_is_there(const RunFacts& /*facts*/) {}
  /// Before the step waits for its data.
  virtual void step_begins(int64_t /*step*/) {}
  /// Before step_ends.
  virtual void step_worked(const StepWork& /*work*/) {}
  virtual void step_ends(int64_t /*step*/) {}

  /// After each step: a number that only rises; every rank then hears the largest of all ranks'.
  virtual int64_t vote() { return 0; }
  /// Called on all ranks with the same value, so collectives of the control group are allowed.
  virtual void heard(int64_t /*vote*/) {}

  /// @param error  null: the run ended as it should, or was stopped with a checkpoint.
  virtual void run_ends(const std::exception* /*error*/) noexcept {}
};

using StepObservers = std::vector<std::shared_ptr<StepObserver>>;

}  // namespace triptych

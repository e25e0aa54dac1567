#pragma once

// What a checkpoint of a training run holds, and how a run goes on from one.

#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_writer.h"
#include "data/row_stream.h"
#include "parallel/sharded_optimizer.h"
#include "train/loaded_model.h"

namespace triptych {

/// `state.json`: everything besides weights and optimizer states. The same for every layout.
struct RunState {
  int64_t step = 0;                                ///< finished optimizer steps
  StreamState data;                                ///< where the stream of samples stands
  int64_t optimizer_steps = 0;                     ///< updates made: steps without those left out
  std::map<std::string, int64_t> deviating_steps;  ///< ShardedOptimizer::deviating_steps
  int64_t skipped = 0;                             ///< updates left out

  Json to_json() const;
  /// @throws DataError naming the field.
  static RunState from_json(const Json& json, const std::string& origin);
};

/// The model's trained weights: all of it in the hub's layout, or adapters as peft's files.
WeightsToSave weights_to_save(const LoadedModel& loaded);

/// This rank's part of the optimizer states. An fp32 weight that is stored as fp32 is its own
/// master and is left out.
std::vector<OptimizerPiece> optimizer_pieces(const LoadedModel& loaded,
                                             const ShardedOptimizer& optimizer);

/// state.json of a checkpoint. @throws DataError
RunState read_run_state(const Checkpoint& checkpoint);

/// Weights and states of a checkpoint, written by any number of ranks, into a model and an
/// optimizer that were just built.
/// @throws DataError naming what is missing or of another model.
void restore(const Checkpoint& checkpoint, const RunState& state, LoadedModel& loaded,
             ShardedOptimizer& optimizer);

}  // namespace triptych

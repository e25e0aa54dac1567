#pragma once

// `triptych plan`: all ranks of a run.

#include <optional>
#include <string>
#include <vector>

#include "parallel/schedule.h"
#include "plan/plan_data.h"
#include "plan/rank_plan.h"

namespace triptych {

struct RunPlan {
  std::string model;
  int64_t processes = 1;
  int64_t parameters = 0, trained = 0;  ///< of the whole model
  int64_t micro_batches = 1;            ///< of a rank's step
  PipelineShape pipeline;
  int64_t micro_batch_tokens = 0;         ///< the mean
  double step_flop = 0, step_tokens = 0;  ///< model flop and tokens of a step over all ranks
  double step_pictures = 0;
  MeshShape mesh;
  std::string advice;               ///< as CheckedLayout
  std::optional<DataSummary> data;  ///< what it goes by; nothing: typical rows
  std::vector<RankPlan> ranks;

  int64_t data_ranks() const { return processes / (mesh.tensor * mesh.context * mesh.pipeline); }
};

/// A run that reads no weights: of the model folder only its config.json, and not even that where
/// the folder is not there and a preset says the sizes.
RunOptions without_weights(RunOptions options);

/// Plans a run over typical micro-batches, or over those of its own data. Ranks that differ only in
/// their place among data ranks (and, in larger runs, among tensor ranks) run the same program: it
/// is run once for all of them.
///
/// With data, exchanges and work are those of the first step, of every data rank (above 8 processes
/// of the one with most work, for which the others are taken); memory is what a step takes of which
/// all micro-batches are like the fullest one that was looked at.
/// @param rank  only this one
/// @param data  null: typical rows
/// @throws UsageError for a mesh that cannot be, with the arithmetic; as load_model
RunPlan plan_run(const RunOptions& options, int64_t processes, std::optional<int64_t> rank = {},
                 int64_t ranks_per_host = 8, const PlanData* data = nullptr);
/// Only the first rank of every pipeline stage. An inner stage with the same layers as an earlier
/// one, trained and recomputed alike, is taken for that, which keeps more micro-batches than it
/// does. With data, of the data rank with most work; of a long step a part of it is run.
RunPlan plan_stages(const RunOptions& options, int64_t processes, int64_t ranks_per_host = 8,
                    const PlanData* data = nullptr);

}  // namespace triptych

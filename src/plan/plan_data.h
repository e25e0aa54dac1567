#pragma once

// What a plan goes by: typical rows, or the rows of the run's own first steps.

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/sample.h"
#include "data/step_rows.h"
#include "nn/model.h"
#include "train/family.h"
#include "train/run_options.h"

namespace triptych {

/// What of a run's data a plan looked at, for its report.
struct DataSummary {
  int64_t sources = 0, records = 0;                   ///< of the run: files, and what they hold
  int64_t samples = 0, skipped = 0;                   ///< looked at; left out as bad before those
  int64_t steps = 0, rows = 0;                        ///< that the samples fill
  int64_t tokens = 0, picture_tokens = 0, media = 0;  ///< in them
  int64_t longest_row = 0, longest_sample = 0;        ///< tokens

  double samples_a_row() const;
  double picture_share() const;  ///< of the tokens
};

/// "data: 2 sources of 52000 records; 1031 samples looked at, the first 6 steps: rows of ..."
std::string data_text(const DataSummary& data);
Json data_json(const DataSummary& data);

/// The rows of a run's first steps and what they are.
struct PlanData {
  StepRows rows;
  DataSummary summary;
};

/// Reads records and headers of media as `train` does before its first steps, from the beginning of
/// the run; nothing is decoded.
/// @param most_samples  ends with the step that reaches it, with the first epoch, or with the run
/// @throws as train: UsageError, DataError for data that cannot be read
PlanData read_plan_data(const RunOptions& options, int64_t most_samples);

/// Rows of `data.max_length` tokens, half of them pictures: what a plan assumes of the data.
MicroBatch typical_micro_batch(const RunOptions& options, const Family& family);

/// What the data ranks of a layout compute.
class PlannedRows {
 public:
  /// @param options     of a layout; `data` is what was read with it, or with another one
  /// @param data_ranks  of the layout
  /// @param data        null: typical rows. Must outlive this.
  PlannedRows(const RunOptions& options, const Family& family, int64_t data_ranks,
              const PlanData* data);

  bool typical() const { return data_ == nullptr; }
  /// A data rank's first step; of typical rows all micro-batches are equal.
  std::vector<MicroBatch> first_step(int64_t data_rank) const;
  /// Micro-batches one of which takes most memory, of all steps and data ranks: those than which no
  /// other one has at least as many tokens and patches and label tokens. Of more than 8 the ones
  /// with the most of one of these, then the largest.
  std::vector<MicroBatch> fullest(const Family& family) const;
  /// The data rank whose first step has most model flop.
  int64_t dearest(const Family& family, const Model& model) const;

 private:
  const PlanData* data_;
  std::vector<MicroBatch> typical_;    ///< a step
  std::vector<LoaderLayout> layouts_;  ///< of the data ranks
};

}  // namespace triptych

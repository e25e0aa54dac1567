#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/hub_folder.h"

namespace triptych {

struct CheckpointOptions {
  std::filesystem::path output;  ///< the run's folder; checkpoints go to output/checkpoints
  int64_t keep = 2;              ///< complete ones left after a save; at least 1; 0 = all
  bool async = true;
};

/// True on every rank iff `ok` was true on every rank; the ranks wait for one another in it. Called
/// from the writer's thread (or the caller's when not asynchronous), the same number of times on
/// every rank, so it must not use a group that the training step uses at the same time.
using Agree = std::function<bool(bool ok)>;

/// Weights of a checkpoint. Whole files are shared out over the ranks.
struct WeightsToSave {
  HubLayout layout;  ///< names, shapes and dtypes as stored; the same on every rank
  TensorProvider provider;
  /// True: the provider gathers over ranks, so every rank calls it for every name in the layout's
  /// order. False: only the rank that writes a name asks for it.
  bool collective = false;
  std::vector<SideFile> files;  ///< rank 0's count
};

/// Elements [begin, end) of one optimizer state of one parameter, flattened; or, with `slice`, of
/// the flattened slice that this rank holds of it (tensor parallelism).
struct OptimizerPiece {
  std::string parameter;
  std::string kind;            ///< "master", "exp_avg", "exp_avg_sq"
  std::vector<int64_t> shape;  ///< of the whole parameter
  int64_t begin = 0, end = 0;
  /// The values, end - begin of them in any shape; stored as fp32. Called once, from the writer's
  /// thread or inside `before_update`; may return live memory or compute a new tensor.
  std::function<at::Tensor()> values;
  std::optional<TensorSlice> slice;
};

/// Writes `checkpoints/step_00000500/` (docs/spec/run_file.md): `weights/`, `optimizer/`,
/// `state.json` and, last, `manifest.json` with sizes and checksums; then moves `latest` and
/// deletes what `keep` no longer covers. A save is complete or absent: everything is written to a
/// temporary folder, flushed and renamed. The ranks must see one file system.
///
/// Used by one thread. When asynchronous, `save` only takes references (tensors of an accelerator
/// are copied to the host); the writer's thread streams the tensors to disk while forward and
/// backward run. They only read parameters, so nothing is copied; what is not yet written when the
/// optimizer wants to change it is copied by `before_update`. An error of the thread is thrown by
/// the next call.
class CheckpointWriter {
 public:
  /// Removes what killed saves left in the folder (rank 0).
  CheckpointWriter(CheckpointOptions options, int rank = 0, int world = 1, Agree agree = {});
  /// Waits for the save in progress; logs its error.
  ~CheckpointWriter();

  /// Starts a save (after waiting for one in progress). Tensors that the provider or a piece
  /// returns must keep their values until `before_update` returns; the weights' provider is called
  /// in here, the pieces' functions later. `state` is rank 0's.
  /// @throws Error the error of this save when not asynchronous, else that of the one before.
  void save(int64_t step, const WeightsToSave& weights, std::vector<OptimizerPiece> optimizer,
            Json state);

  /// To be called before tensors of the last save change: copies, with all threads, what is not
  /// written yet. Costs nothing when no save is in progress.
  void before_update();

  /// Returns when no save is in progress. @throws Error of the save.
  void wait();

  /// True while a save is in progress.
  bool busy() const;

  /// What the last save cost.
  struct Statistics {
    double stalled_seconds = 0;  ///< in `save` and `before_update`
    double total_seconds = 0;    ///< until complete on disk
    int64_t bytes = 0;           ///< written by this rank
    int64_t copied_bytes = 0;    ///< of these, copied to host memory first
  };
  Statistics statistics() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace triptych

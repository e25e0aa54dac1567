#pragma once

#include <filesystem>
#include <optional>

#include "base/descriptor.h"
#include "checkpoint/checkpoint_folder.h"
#include "parallel/process_context.h"
#include "train/run_options.h"

namespace triptych {

/// Holds a run's folder for one run at a time, until the process ends or this goes.
class FolderLock {
 public:
  /// Makes the folder where it is not there.
  /// @throws UsageError when another process holds it. A file system without locks: a warning.
  explicit FolderLock(const std::filesystem::path& output);

 private:
  Descriptor folder_;
};

/// Makes `output` ready for a run; on rank 0, before any other rank looks at it. Leaves what an
/// earlier run wrote when this one goes on from it.
/// @param overwrite  an earlier run in it is deleted: only what a run writes, nothing else.
/// @throws UsageError when a run is there already that this one would not go on from; Error when
/// the
///   folder cannot be written.
void prepare_run_folder(const RunOptions& options, bool overwrite);

/// Writes `run.toml`, every option as it is used.
void write_run_file(const RunOptions& options);

/// Where the run goes on from, by `checkpoint.resume`; nothing for a fresh start. Checksums are
/// compared with `checkpoint.verify`.
/// @throws DataError when there are checkpoints, but none is whole.
std::optional<Checkpoint> find_resume_point(const RunOptions& options);

/// Both on rank 0, and its answer for all ranks, so that nobody reads the folder while it changes.
/// A run that goes on with other settings than before says which; of a fresh one `run.toml` is
/// written.
std::optional<Checkpoint> agree_on_resume(ProcessContext& process, const RunOptions& options,
                                          bool overwrite);

}  // namespace triptych

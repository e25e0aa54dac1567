#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "parallel/mesh.h"
#include "train/family.h"
#include "train/run_options.h"

namespace triptych {

/// Every rule of docs/spec/parallelism.md 1.5 that a run breaks on `world_size` processes, with the
/// arithmetic in the message. Needs the model's sizes, but no rank beside this one.
/// @param ranks_per_host  0: not known, what depends on it is not checked
void validate_layout(const RunOptions& options, const Family& family, int64_t world_size,
                     Problems& problems, int64_t ranks_per_host = 0);

struct CheckedLayout {
  MeshShape mesh;
  std::string advice;  ///< what is allowed and not meant, to be said once a run
};
/// The same with the sizes from the run's model folder, before anything is started.
/// @throws UsageError with all broken rules; Error or UsageError for a model that cannot be read.
CheckedLayout check_layout(const RunOptions& options, int64_t world_size,
                           int64_t ranks_per_host = 0);
/// The same for a family that is known already.
CheckedLayout check_layout(const RunOptions& options, const Family& family, int64_t world_size,
                           int64_t ranks_per_host = 0);

}  // namespace triptych

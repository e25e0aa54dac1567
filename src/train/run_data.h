#pragma once

// The data of a run: its processor, its validation set, and how many steps they make.

#include <cstdint>
#include <memory>
#include <optional>

#include "data/pipeline.h"
#include "train/run_options.h"

namespace triptych {

/// Of `model.path`'s files.
/// @throws UsageError where that is not set
std::unique_ptr<QwenProcessor> make_run_processor(const RunOptions& options);

/// Nothing where the run validates on nothing.
std::optional<Dataset> open_validation(const RunOptions& options);

/// Which rows of a training step are data rank `data_rank`'s.
LoaderLayout training_layout(const RunOptions& options, int64_t data_rank, int64_t data_size);

/// The optimizer steps of the whole run; reads the data where `epochs` depends on it.
int64_t count_steps(const TrainOptions& train, Loader& loader);

}  // namespace triptych

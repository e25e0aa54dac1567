#pragma once

// From the tables of a run file to the settings of the parts that train.

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>

#include "parallel/mesh.h"
#include "parallel/process_context.h"
#include "parallel/sharded_optimizer.h"
#include "train/loaded_model.h"
#include "train/run_options.h"
#include "train/schedule.h"
#include "train/train_step.h"

namespace triptych {

c10::DeviceType device_type(DeviceKind kind);
/// The device of this process: `device` of the run file with its local rank.
at::Device device_of(const RunOptions& options, int64_t local_rank);

/// Of weights and activations.
at::ScalarType compute_type(const RunOptions& options);

ProcessOptions process_options(const RunOptions& options);
/// @param query_heads  of the text model, on one tensor rank: what a hybrid of Ulysses and ring
///   with `ulysses_degree = 0` goes by.
MeshShape mesh_shape(const ParallelOptions& options, int64_t query_heads);

/// Without `device`; the seed also fixes random weights and the first values of adapters.
ModelRequest model_request(const RunOptions& options);

AdamWSettings adamw_settings(const OptimizerOptions& options);
ShardingSettings sharding_settings(const RunOptions& options);
/// @param loaded  already cut into stages.
StepSettings step_settings(const RunOptions& options, const LoadedModel& loaded, at::Device device);

/// What a sample of so many tokens costs in forward and backward, up to a factor, by the layers'
/// own costs: what `parallel.balance_samples` shares out.
std::function<double(int64_t tokens)> length_cost(const RunOptions& options);

/// @param steps  of the whole run.
Schedule make_schedule(const RunOptions& options, int64_t steps);

}  // namespace triptych

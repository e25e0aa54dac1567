#pragma once

// Real steps beside which plans are put: one rank's exchanges and memory, left in a file.

#include <functional>

#include "base/files.h"
#include "base/format.h"
#include "kernels/memory_ledger.h"
#include "parallel/launch_environment.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

/// @param config  `folder` with a run.toml, and what to `set` in it
inline RunOptions read_options(const Json& config) {
  return read_run_options(
             {.file = std::filesystem::path(config.at("folder").get<std::string>()) / "run.toml",
              .environment = nullptr,
              .assignments = config.at("set").get<std::vector<std::string>>()})
      .options;
}

using MakeBatches = std::function<std::vector<MicroBatch>(int64_t step)>;

/// Trains as the command does, without its log and checkpoints, and writes rank_R.json: the traffic
/// of step `counted`, and the most memory in tensors over all steps, in all and by kind.
/// @param data  makes a rank's source of micro-batches, once its place is known
inline int run_planned_steps(const Json& config, int64_t steps, int64_t counted,
                             const std::function<MakeBatches(ProcessContext&)>& data) {
  const auto options = read_options(config);
  ProcessContext process(read_launch_environment(), process_options(options));
  process.set_mesh(check_layout(options, process.world_size()).mesh);
  const auto batches = data(process);
  const auto before = memory_totals();
  const auto loaded = load_part(process, options, at::kCPU);
  ShardedOptimizer optimizer(loaded.model.parameters, adamw_settings(options.optimizer),
                             sharding_settings(options),
                             optimizer_groups(process, options, loaded));
  const auto stage = Stage::make(process, options, loaded, at::kCPU);
  TrainStep step(loaded, optimizer, process.group({MeshDim::kData}),
                 step_settings(options, loaded, at::kCPU), stage.get());
  reset_memory_peak();
  Json traffic = Json::array();
  for (int64_t i = 1; i <= steps; ++i) {
    const auto micro_batches = batches(i);
    process.clear_traffic();
    step.run(micro_batches, i, 1e-3);
    if (i != counted) continue;
    for (const auto& [key, t] : process.traffic())
      traffic.push_back({key.first, key.second, t.ranks, t.calls, t.bytes});
  }
  const auto most = memory_peak();
  Json kinds;
  for (size_t i = 0; i < kMemoryKinds; ++i)
    kinds[std::string(kMemoryKindNames[i])] = most.by_kind[i] - before.by_kind[i];
  write_file_atomically(
      std::filesystem::path(config.at("folder").get<std::string>()) /
          fmt::format("rank_{}.json", process.rank()),
      dump_json(Json{{"traffic", traffic}, {"peak", most.bytes - before.bytes}, {"kinds", kinds}}));
  process.close();
  return 0;
}

}  // namespace triptych

#pragma once

// The watched file of dynamic collection, `profiler_config.json`: what the run and `triptych
// profile` agree on. Keys and defaults: docs/spec/profiling_and_insight.md, 1.2.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "train/run_options.h"

namespace triptych {

inline constexpr const char* kDynamicConfigName = "profiler_config.json";
inline constexpr const char* kDynamicStatusName = "status.json";

/// One request.
struct DynamicRequest {
  std::string id;          ///< who asked; told again in the status. "" in files of other programs
  bool stop = false;       ///< end the collection that runs
  int64_t steps = 1;       ///< "active"
  int64_t warmup = 0;      ///< steps to let pass
  int64_t start_step = 0;  ///< at or below 0: the next one
  std::vector<int64_t> ranks = {0};  ///< {-1}: all
  int64_t level = 1;
  bool with_cpu = true, with_stack = false, with_memory = false, record_shapes = false,
       analyse = true;
  std::filesystem::path folder;  ///< "prof_dir"; empty or ".": where the run puts its traces
  std::string metadata;          ///< a JSON object; empty: none
};

/// The file as it lies there when a run begins: the run's own settings.
Json dynamic_config(const ProfileOptions& options);

/// @throws DataError with the key for a value of a wrong type. Unknown keys are other programs'.
DynamicRequest read_dynamic_request(const Json& config, const std::string& origin,
                                    const ProfileOptions& options);

/// The watched folder of a run.
std::filesystem::path dynamic_folder(const std::filesystem::path& output,
                                     const ProfileOptions& options);

}  // namespace triptych

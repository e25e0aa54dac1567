#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/comm_calls.h"
#include "insight/step_times.h"

namespace triptych::insight {

/// Something that costs time, in words and with its evidence. `kind` of what is wrong: slow_rank,
/// slow_link, loader_stall, clock_skew, memory_growth, profiling_damage. Of what a healthy run may
/// show as well (`advice`): data_bound, exposed_communication, outlier_step.
struct Finding {
  std::string kind;
  std::string words;
  bool advice = false;
  std::optional<int64_t> rank;
  std::optional<int64_t> step;
  std::optional<int64_t> src, dst;
  double severity = 0;  ///< share of the step time at stake, for the order
  std::string page;     ///< where the viewer shows it
  std::optional<uint64_t> slice;
  Json evidence = Json::object();
};

std::vector<Finding> find_problems(const Run& run, const CommCalls& calls,
                                   const std::vector<StepTimes>& steps, int64_t span);

Json to_json(const Finding& finding);

}  // namespace triptych::insight

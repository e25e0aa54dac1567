#pragma once

// `plan --suggest`: layouts that fit into the memory of a number of devices, the fastest first.

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "plan/cost_model.h"

namespace triptych {

struct SuggestRequest {
  int64_t devices = 1;
  int64_t memory_bytes = 0;  ///< of a device
  double share = 0.92;       ///< of it that a plan may fill: the rest is the driver's and fragments
  size_t count = 3;          ///< layouts to find
  size_t most_plans = 32;    ///< layouts to run at most; twice as many while none fits
};

struct Suggestion {
  RunOptions options;  ///< with this layout
  RunPlan plan;        ///< of one rank of every stage
  StepTime time;
  int64_t bytes = 0;  ///< of the fullest rank
  bool fits = false;
  std::string name;  ///< "tensor 2, pipeline 4, data 8, recompute full"
  std::string why;   ///< it does not fit, or what most of its time goes into
  std::string toml;  ///< layout_toml
};

struct Suggestions {
  std::vector<Suggestion> fitting;  ///< the fastest first
  std::vector<Suggestion> others;   ///< that were run and do not fit, the smallest first
  int64_t tried = 0;                ///< layouts run
  int64_t left_out = 0;             ///< slower at best than those found, or too large at least
  int64_t untried = 0;              ///< might be better or fit: the search ended before them
  int64_t impossible = 0;           ///< that break a rule
  std::optional<DataSummary> data;  ///< what they were planned with; nothing: typical rows
};

/// Layouts are tried in the order of the least time they could take; where one does not fit, the
/// same with recompute comes next and those that shard less are left out. The search ends when none
/// of the rest could be faster than those found, or after `most_plans`.
/// @param data  what they are planned with; null: typical rows
Suggestions suggest(const RunOptions& options, const Machine& machine,
                    const SuggestRequest& request, const PlanData* data = nullptr);

/// `[parallel]` and `[recompute]` in place of the run file's: every key with another value than its
/// default.
/// @param given  the run file's: layers that it counts stage by stage are said to be "auto" now
std::string layout_toml(const RunOptions& options, const RunOptions& given);
std::string suggestions_text(const Suggestions& found, const Machine& machine,
                             const SuggestRequest& request);
Json suggestions_json(const Suggestions& found);

}  // namespace triptych

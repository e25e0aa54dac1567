#pragma once

#include <string>

#include "base/json.h"
#include "plan/cost_model.h"

namespace triptych {

/// For programs: `parameters`, and of each of `ranks` the bytes by kind with their `total`.
/// @param time  null: not predicted
Json plan_json(const RunPlan& plan, const StepTime* time, const Machine* machine);

/// For people. Ranks with the same memory share a line.
std::string plan_text(const RunPlan& plan, const StepTime* time, const Machine* machine);

/// One line for each rank that takes more than this share of a device's memory; empty: all fit.
std::string fit_text(const RunPlan& plan, int64_t memory_bytes, double share);

/// Indented lines as in the message of a failed allocation: a rank's planned memory by kind.
/// @param tokens  of the rows that were planned
std::string rank_memory_text(const RankPlan& rank, int64_t tokens);

/// `plan --explain`: every term with its formula.
std::string terms_text(const std::vector<CostTerm>& terms, const StepTime& time);
Json terms_json(const std::vector<CostTerm>& terms);

/// "tensor 2 x pipeline 4 x data 8"
std::string mesh_text(const MeshShape& mesh, int64_t processes);

}  // namespace triptych

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

/// "tensor 2 x pipeline 4 x data 8"
std::string mesh_text(const MeshShape& mesh, int64_t processes);

}  // namespace triptych

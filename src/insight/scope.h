#pragma once

#include <vector>

#include "insight/queries.h"

namespace triptych::insight {

/// Positions in run.files() of what a question is about.
std::vector<int> files_of(const Run& run, const Scope& scope);

/// That of the rank asked for, or of the first. @throws Error when it has no readable trace.
int one_file(const Run& run, const Scope& scope);

}  // namespace triptych::insight

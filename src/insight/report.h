#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace triptych::insight {

/// The document of Queries::summary_document as text of at most 100 columns, without colours.
std::string report_text(const Json& summary, int64_t top);

/// What each layer holds at each peak of `memory`, by category; a row a layer.
Json memory_layers_table(const Json& summary);

/// MindStudio's step_trace_time table (section 3.2), in us: one row per rank and step, then one per
/// stage with the maximum over its ranks.
std::string step_trace_csv(const Json& summary, const Json& layout);

/// "exposed_comm > 0.2": compares a share of the mean step, or a number of the summary, with a
/// bound. Left: compute, exposed_comm, overlapped, free, preparing, bubble, loader_wait (shares of
/// the step), step_ms, findings, peak_gib. Operators: > >= < <=. @throws UsageError naming what is
/// allowed.
bool holds(const Json& summary, std::string_view expression);

}  // namespace triptych::insight

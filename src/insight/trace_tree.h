#pragma once

#include <optional>
#include <string>
#include <vector>

#include "insight/trace.h"

namespace triptych::insight {

// Walks over the nesting of a trace.

/// Positions [first, last) of a row's events that may overlap [t0, t1): all that start before t1
/// and, from the last one that starts at or before t0, on. Times of the trace itself.
struct EventRange {
  EventId first = 0, last = 0;
};
EventRange events_between(const Trace& t, const Row& row, int64_t t0, int64_t t1);

/// Direct children, in order of time.
std::vector<EventId> children_of(const Trace& t, EventId e);

/// Own duration less that of the direct children, never below 0.
int64_t self_ns(const Trace& t, EventId e);

/// The same for all events at once.
std::vector<int64_t> self_times(const Trace& t);

/// The nearest enclosing event (or the event itself) of one of the categories; kNone.
EventId enclosing(const Trace& t, EventId e, Category category);

/// Module path of an event on the host: names of the enclosing "nn.Module: ..." scopes or scopes of
/// category `module`; the innermost path. Device work asks its launching call. "" when there is
/// none.
std::string module_of(const Trace& t, EventId e);

/// The operator that launched a device event, or the event's own innermost operator; kNone.
EventId op_of(const Trace& t, EventId e);

/// The step whose window holds the event's begin; device work is asked at its launch.
std::optional<int64_t> step_of(const Trace& t, EventId e);

}  // namespace triptych::insight

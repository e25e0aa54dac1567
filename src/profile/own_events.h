#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "profile/recorder.h"

namespace triptych {

/// Our records as events of a trace: text between the brackets of "traceEvents", each event ending
/// with a comma. Communication that goes on beside other work has a lane for each group, so that it
/// crosses nothing of the thread that launched it.
/// @param base_ns  Unix time of the trace's time 0.
std::string own_events(const Records& records, const std::vector<NodeRun>& nodes, int64_t base_ns,
                       int64_t pid);

/// "12345.678": µs since the base, from ns.
std::string trace_time(int64_t ns, int64_t base_ns);

}  // namespace triptych

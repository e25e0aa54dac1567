#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// One gap on a device stream before a kernel.
struct IdleGap {
  uint32_t track = 0;
  EventId kernel = 0;  ///< that ends the gap
  int64_t begin_ns = 0, end_ns = 0;
  enum Kind { kHostWait, kKernelWait, kOther } kind = kOther;
};

/// Section 3.4: the host was late when the kernel's launch began after the kernel before had ended;
/// a short gap between queued kernels is the device's own.
std::vector<IdleGap> idle_gaps(const Trace& trace, int64_t short_gap_ns = 30000);

/// {"rows":[{"rank","stream","kind","count","total_ns"}],"causes":[{"name","count","total_ns"}]}:
/// the causes name what the launching thread did during most of each gap. Runs on the CPU: what the
/// main thread did in the step while it computed and communicated nothing.
Json idle_json(const Run& run, const std::vector<int>& files, std::optional<int64_t> step);

}  // namespace triptych::insight

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "insight/run.h"

namespace triptych::insight {

struct CommCalls;

/// The host that a trace was recorded on, as its header says; "" when it does not.
std::string host_of(const Trace& trace);

/// What was found out about one host's clock.
struct HostClock {
  std::string host;
  int64_t offset_ns = 0;  ///< added to its times
  double drift = 0;       ///< ns per ns that remain after the offset (not applied)
  int64_t residual_p95_ns = 0;
  /// Median distance of single collectives from the offset: how far their ends scatter by
  /// themselves. The median, for a rank that lost its core for a while says nothing of its clock.
  int64_t residual_median_ns = 0;
  int64_t calls = 0;  ///< collectives that it was estimated from
};

/// Ranks of one host share a clock. A blocking collective ends everywhere at about the same
/// instant: the offset of a host is the median of (median end over the ranks - end on this host)
/// over all matched collectives. Sets TraceFile::offset_ns of all files; the most frequent host
/// keeps 0.
std::vector<HostClock> align_clocks(Run& run);

/// The estimate without setting anything, from the times as they are aligned now: what remains.
/// @param calls  those of the span
std::vector<HostClock> estimate_clocks(const Run& run, const CommCalls& calls, int64_t span);

/// Lets align_clocks set what only it may.
struct ClockAlignment {
  static void set_offset(Run& run, int file, int64_t offset_ns) {
    run.files_[static_cast<size_t>(file)].offset_ns = offset_ns;
  }
};

}  // namespace triptych::insight

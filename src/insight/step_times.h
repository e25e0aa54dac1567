#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "insight/intervals.h"
#include "insight/run.h"

namespace triptych::insight {

/// Where one step of one rank went; section 3.2. All in ns. Always, exactly:
///   total = compute_only + overlapped + exposed + free + preparing
///   compute = compute_only + overlapped      communication = exposed + overlapped
struct StepTimes {
  int64_t rank = 0, step = 0;
  int file = 0;
  int64_t begin_ns = 0, end_ns = 0;  ///< since Run::origin_ns()
  int64_t total = 0;
  int64_t compute = 0, communication = 0, overlapped = 0;
  int64_t compute_only = 0, exposed = 0, free = 0, preparing = 0;
  int64_t bubble = 0;  ///< part of exposed: waiting for a message of another pipeline stage
  int64_t stage = 0;   ///< total - bubble
  int64_t memory_copy = 0, sync = 0;  ///< parts of free: copies, waits for the device
  int64_t loader_wait = 0;            ///< time in the loader's scopes on the host
  /// How long the thread of the steps was ready but had no core, as the run says; -1: it does not.
  int64_t core_wait = -1;
  double overlap_ratio() const {
    return communication > 0 ? static_cast<double>(overlapped) / static_cast<double>(communication)
                             : 0;
  }
};

/// The unions that the sums are taken over: all of one trace, times of the trace itself.
struct Lanes {
  std::vector<Interval> compute, communication, receive, memory, sync, loader;
  std::string source;  ///< "device" or "cpu"
};

/// Device work where the trace has any. Otherwise (a run on the CPU) the operators of the threads
/// that compute: those of the steps and those of backward. On one thread the innermost record
/// counts, so that an operator that waits in a collective is not computing meanwhile.
Lanes lanes_of(const Trace& trace);

/// True for scopes in which the host waits for data.
bool is_loader_wait(std::string_view name);

/// All steps of all ranks of one span, by rank then step. The window is the scope ProfilerStep#n on
/// the host; device work counts where it runs, clipped to the window, so that the sums are exact
/// also where the device lags behind. Without step marks the whole trace is one step with number
/// -1.
std::vector<StepTimes> step_times(const Run& run, int64_t span = -1);

/// Sums of window [begin, end): the arithmetic behind step_times.
StepTimes split_window(const Lanes& lanes, int64_t begin_ns, int64_t end_ns);

Json to_json(const StepTimes& t);

}  // namespace triptych::insight

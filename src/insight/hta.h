#pragma once

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// The figures of HolisticTraceAnalysis 0.5 by its own rules, for comparison with it (section 4):
/// device work but for the two tables of the host, the last step dropped, times in us, rounded
/// where the trace has fractions unless HTA_DISABLE_NS_ROUNDING=1. One member per rank in each of:
/// temporal_breakdown, comm_comp_overlap, gpu_kernel_types, gpu_kernels, idle_time_breakdown,
/// cuda_kernel_launch_stats, queue_length_summary, memory_bw_summary, gpu_user_annotations,
/// host_user_annotations; host_events: every name of the host with its count and total duration.
Json hta_json(const Run& run, int64_t span = -1);

}  // namespace triptych::insight

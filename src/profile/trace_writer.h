#pragma once

// From what a window collected to the file that viewers read.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "kernels/memory_ledger.h"
#include "profile/kineto_session.h"
#include "profile/native_stacks.h"
#include "profile/recorder.h"

namespace triptych {

/// One rank's part of one window.
struct TraceParts {
  std::unique_ptr<KinetoSession::Collected> collected;
  Records records;
  std::optional<MemoryRecording> memory{};  ///< where our books have recorded, not Kineto
  int memory_device = -1;                   ///< index of its device; -1: the host
  NativeStacks stacks{};                    ///< with_stack
  Json header;  ///< members of the trace's outermost object, distributedInfo and "mm" among them
};

/// "rank-R_PID.TIME": what TensorBoard's plugin takes for worker and span, sorted by rank.
std::string trace_stem(int64_t rank, int64_t pid, int64_t time_ns);

/// Writes `<stem>.pt.trace.json.gz`, complete or not at all: under another name first, flushed, and
/// renamed. @throws Error with the path and the system's words, e.g. on a full disk.
void write_trace(TraceParts parts, const std::filesystem::path& stem);

}  // namespace triptych

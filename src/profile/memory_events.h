#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "kernels/memory_ledger.h"
#include "profile/native_stacks.h"

namespace triptych {

/// A recording as events of a trace: "[memory]" with Kineto's arguments, and `Category` and
/// `Module` from the books. What was alive at its begin comes first, at that moment and on the main
/// thread, so that the curve has all its parts from the first point on. A release carries what its
/// block was for. "Total Reserved" is 0 on the host, as Kineto has it there.
/// @param base_ns  Unix time of the trace's time 0.
/// @param pid      process, and number of its main thread
/// @param device   index of the device whose memory it is; -1: the host's.
/// @param put      called with pieces of the text in their order; each event ends with a comma.
void write_memory_events(const MemoryRecording& recording, const StackNames& stacks,
                         int64_t base_ns, int64_t pid, int device,
                         const std::function<void(std::string_view)>& put);

}  // namespace triptych

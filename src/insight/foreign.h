#pragma once

#include <vector>

#include "insight/event_sink.h"

namespace triptych::insight {

/// What a lane of torch_npu's timeline holds. Its events have no category: the process's name says
/// it. kUsual for everything else.
enum class TrackRole : uint8_t { kUsual, kDevice, kCollectives, kHost, kRuntime, kDerived };

/// Finds the roles by the names of processes, and makes device lanes of hardware streams.
void adapt_foreign_tracks(StringTable& strings, std::vector<Track>& tracks,
                          std::vector<TrackRole>& roles);

/// Gives an event the category that its lane implies.
void adapt_foreign_event(const StringTable& strings, TrackRole role, RawEvent& event);

/// Bytes of a collective's payload from its element counts; -1 when unknown.
int64_t payload_bytes(std::string_view name, std::string_view dtype, int64_t in_elements,
                      int64_t out_elements);

}  // namespace triptych::insight

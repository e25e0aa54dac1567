#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "insight/event_sink.h"
#include "insight/foreign.h"
#include "insight/trace_image.h"

namespace triptych::insight {

using Sinks = std::vector<std::unique_ptr<EventSink>>;

/// What the readers of one trace collected, with common ids. Their events stay with the sinks and
/// still have the ids of their reader, which the lists per sink translate.
struct JoinedSinks {
  struct Offsets {
    uint32_t collectives = 0, kernels = 0, ops = 0;
  };
  StringTable strings;
  std::vector<std::vector<StringId>> strings_of;  ///< per sink: its id -> the common one
  std::vector<std::vector<uint32_t>> tracks_of;   ///< per sink: its track -> place in image.tracks
  std::vector<Offsets> offsets;                   ///< per sink: where its details begin
  std::vector<TrackRole> roles;                   ///< per track
  std::vector<RawFlow> flows;
  uint64_t bad_events = 0, untimed_events = 0;
};

/// Joins strings, tracks (in the order of the timeline) and small tables, which go to `image`.
/// @throws DataError when there are more threads than a timeline can hold.
JoinedSinks join_sinks(Sinks& sinks, TraceImage& image);

}  // namespace triptych::insight

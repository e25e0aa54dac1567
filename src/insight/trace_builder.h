#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "insight/event_sink.h"
#include "insight/trace_image.h"

namespace triptych::insight {

/// Makes the columns of one trace from what its readers collected: joins their strings and tracks,
/// drops what lies days away from the rest, pairs begin and end records, nests, links launches with
/// device work, and builds the levels of detail. `sinks` are emptied on the way.
/// @param image  carries metadata, warnings, gz points and the source already
/// @param jobs   threads
std::unique_ptr<TraceImage> build_trace(std::vector<std::unique_ptr<EventSink>> sinks,
                                        std::unique_ptr<TraceImage> image, int jobs,
                                        const std::atomic<bool>* cancel);

// Parts of it, one file each.

/// Order and depth of the events of one track.
struct Nesting {
  std::vector<uint32_t> order;   ///< final position -> position before; empty: as it was
  std::vector<uint32_t> parent;  ///< by final position, as final positions; kNone
  std::vector<uint16_t> depth;   ///< by final position
  std::vector<Row> rows;         ///< first_event relative to the track
};

/// Sorts by (start, longest first), nests by containment, then orders by depth. Children may stick
/// out by less than a us, as rounding does; what really overlaps goes to a row of its own.
Nesting nest_events(std::span<const int64_t> ts, std::span<const int64_t> dur);

/// Buckets of all rows; see Level.
void build_levels(TraceImage& image);

/// Device work <-> launching call, by correlation; without launch records operators by external id.
void link_launches(TraceImage& image);

void match_flows(TraceImage& image, std::vector<RawFlow>& flows);

void find_steps(TraceImage& image);

}  // namespace triptych::insight

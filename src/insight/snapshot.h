#pragma once

#include <filesystem>

#include "base/json.h"

namespace triptych::insight {

/// A memory snapshot (pickle as PyTorch's page reads it, or JSON of the same form) for the viewer:
///   {"path","devices":[{"device","segments":[{"address","total","allocated","requested","type","stream",
///    "blocks":[{"address","size","requested","state","frame"}]}],
///    "reserved","allocated","largest_free"}], "timeline":[{"t_us","allocated"}], "events":N,
///    "by_frame":[{"frame","bytes","count"}], "categories", "curve" and "peak" of snapshot_history,
///    "about": what one of ours says of itself (profile/memory_snapshot.h)}
/// @throws DataError, Error naming the file.
Json snapshot_json(const std::filesystem::path& path);

}  // namespace triptych::insight

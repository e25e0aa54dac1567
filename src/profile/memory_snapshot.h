#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/memory_ledger.h"

namespace triptych {

/// What a snapshot says of itself besides its blocks.
struct SnapshotFacts {
  int64_t rank = 0, world_size = 1;
  int64_t first_step = 0, end_step = 0;  ///< half-open; 0 is the building of the model
  std::string failure{};                 ///< why the run ended; empty: it did not
};

/// Writes a recording in the form that PyTorch's memory page and torch.cuda._memory_viz read
/// (docs/spec/profiling_and_insight.md, 8.2), in one piece: `segments` are the blocks alive at the
/// end, joined where less than 2 MiB lies between them, `device_traces` every allocation and
/// release. Frames are the layer and the thread; blocks and events carry their `category`.
/// The key "triptych" holds the facts, begin and end, and how many events were dropped.
/// @throws Error when the file cannot be written.
void write_memory_snapshot(const std::filesystem::path& file, const MemoryRecording& recording,
                           const SnapshotFacts& facts);

/// save_path/snapshot_YYYY-MM-DD-HH-MM_<rank>.pickle in local time, as the older suite names it,
/// with "_2" and so on before the ending where that is taken. Makes the folder.
std::filesystem::path new_snapshot_path(const std::filesystem::path& folder, int64_t rank);

}  // namespace triptych

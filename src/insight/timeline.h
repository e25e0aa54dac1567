#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

// What the timeline asks for. All binary answers are little endian and 4-byte aligned, so that a
// page can lay typed arrays over them. Times are ns since Run::origin_ns().

/// Tracks of one rank (or of all with rank -1), grouped by process:
/// {"ranks":[{"rank","span","file","offset_ns","processes":[{"pid","name","tracks":[
///   {"id","name","kind":"thread|stream|counter","device","depth","count","begin_ns","end_ns"}]}]}],
///  "begin_ns","end_ns"}. A counter track also has "min","max".
Json tracks_json(const Run& run, int64_t rank = -1, int64_t span = -1);

/// One tile is 512 buckets of 2^level ns, starting at tile * 512 * 2^level ns.
struct TileRequest {
  uint32_t level = 10;
  std::vector<int64_t> tiles;
  std::vector<uint32_t> tracks;  ///< track ids
};

/// Answer: header {u32 magic 'TILE' = 0x454C4954, u32 num_blocks}, then for each (track, tile):
///   u32 track, u32 tile_low, u32 tile_high, u32 num_rows, and for each row:
///   u32 depth, u32 num_slices, and columns of num_slices values each:
///     f64 start_ns (since the tile's start; the array begins 8-byte aligned, one u32 of padding
///     is inserted when needed), f64 dur_ns, u32 name, u32 event, u32 count, f32 covered
///   A slice with count > 1 stands for `count` events in one bucket, named after the longest;
///   with count 1 it is that event itself, with its exact times.
/// Names are positions in the string table of strings_json.
std::string tiles_binary(const Run& run, const TileRequest& request);

/// The strings of one file that slices refer to: {"file", "from", "strings":[...]}, shortened to
/// 256 characters each. `from` lets a client fetch only what it has not got.
Json strings_json(const Run& run, int file, uint32_t from = 0, uint32_t limit = 100000);

/// A name as it is shown: valid UTF-8 of at most 256 bytes.
std::string display_name(std::string_view name);

/// Real slices of one track in [t0, t1), at most `limit`, longest first if there are more; the
/// form of one block of tiles_binary with all counts 1.
std::string slices_binary(const Run& run, uint32_t track, int64_t t0, int64_t t1, uint32_t limit);

/// {"id","rank","track","name","category","class","start_ns","duration_ns","self_ns","depth","args",
///  "module","step","parents":[{"id","name"}],"children":[...],"flows_in":[...],"flows_out":[...],
///  "kernels":[...],"launched_by","previous","next"}   (previous, next: of the same name)
Json slice_json(const Run& run, uint64_t slice);

/// Aggregation of a selection: {"t0","t1","rows":[{"name","category","class","count","total_ns",
/// "self_ns","avg_ns","min_ns","max_ns"}],"busy":[{"track","busy_ns","share"}],
/// "classes":{"compute_ns",...}}. Times are clipped to the selection; self_ns of all rows of a
/// track adds up to its busy_ns.
Json range_json(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1);

/// Matches by name, by `key:value` of an argument, or by /regular expression/:
/// {"matches":[{"id","rank","track","name","start_ns","duration_ns"}],"total","next"}; `after` is
/// the `next` of the page before, "" at first; next is null at the end.
Json search_json(const Run& run, std::string_view query, int64_t rank, uint32_t limit,
                 std::string_view after);

/// {"flows":[{"from","to","from_track","to_track","from_depth","to_depth","from_ns","to_ns"}],
/// "total","truncated"} of arrows with an end on one of the tracks within [t0, t1); of more than
/// `limit` every n-th in the order of the events, so by time within each row.
Json flows_json(const Run& run, std::span<const uint32_t> tracks, int64_t t0, int64_t t1,
                uint32_t limit = 2000);

/// n buckets over [t0, t1): {"track","t0","t1","min":[],"max":[],"avg":[]}; null where nothing was
/// recorded before.
Json counters_json(const Run& run, uint32_t track, int64_t t0, int64_t t1, uint32_t n);

/// The next (or previous) event of the same name on any track of the file: slice id, or null.
Json same_name_json(const Run& run, uint64_t slice, bool forward);

}  // namespace triptych::insight

#pragma once

#include <cstdint>
#include <filesystem>

#include "base/json.h"

namespace triptych::insight {

/// Where a file of metrics has got to; changes when rows come or the file is replaced.
struct MetricsMark {
  uint64_t id = 0;    ///< of the file itself: another one after a resume cut rows off
  uint64_t size = 0;  ///< bytes; 0 also when there is no file (yet)
  bool operator==(const MetricsMark&) const = default;
};
MetricsMark metrics_mark(const std::filesystem::path& path);

/// Whole rows of a metrics.jsonl from byte `from` on:
/// {"id","from","next","size","skipped","rows":[...]}. With another `id` than the file's, or beyond
/// its end, it begins at 0 again. A row that is not an object of numbers and words is skipped and
/// counted. At most `limit` rows; a line that the run has not finished writing is left for the next
/// time.
Json metrics_rows(const std::filesystem::path& path, uint64_t id, uint64_t from, int64_t limit);

}  // namespace triptych::insight

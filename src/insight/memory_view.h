#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

/// One block of memory from its allocation to its release, as far as the trace saw both.
struct Allocation {
  uint64_t address = 0;
  int64_t bytes = 0;
  int64_t begin_ns = INT64_MIN;  ///< of the trace; INT64_MIN: allocated before it began
  int64_t end_ns = INT64_MAX;    ///< INT64_MAX: still there at its end
  uint32_t track = kNone;
  EventId op = kNone;    ///< innermost operator around the allocation
  std::string category;  ///< recorded, else from the life time; section 3.6
  std::string module;
};

/// Pairs allocations with releases of one device ("type, index"; section 2.2). By begin.
std::vector<Allocation> allocations_of(const Trace& trace, int32_t device_type, int32_t device);

/// Devices that have memory records, the busiest first.
std::vector<std::pair<int32_t, int32_t>> memory_devices(const Trace& trace);

/// When most was allocated: time and bytes.
struct Peak {
  int64_t ts_ns = 0, allocated = 0, reserved = 0;
};
std::optional<Peak> memory_peak_of(const Trace& trace, int32_t device_type, int32_t device);

/// Bytes by module and category.
using BytesByModule = std::map<std::string, std::map<std::string, int64_t>>;
/// [{"module", <category>: bytes..., "bytes", "share"}], the largest first; the categories beyond
/// the largest (memory_categories.h) as "other".
Json layer_rows(const BytesByModule& modules, int64_t allocated);

// The documents of the endpoints memory/*.
/// {"rank","device","points":[{"t","allocated","reserved"}],"peak":{...},"categories":{name:[bytes...]}}
Json memory_curve_json(const Run& run, int file, int64_t points);
/// Of memory_peak_json: {"rank","peak_ns","allocated","rows":[{"category","bytes"}]}
Json category_rows(const Json& peak);
/// {"peak_ns","allocated","layers":[{"module","bytes",<category>...}],
///  "rows":[{"category","module","op","bytes","count","share"}],"hints":[]}
Json memory_peak_json(const Run& run, int file);
Json memory_allocations_json(const Run& run, int file, int64_t offset, int64_t limit,
                             std::string_view sort);

}  // namespace triptych::insight

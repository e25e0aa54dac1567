#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "insight/byte_source.h"

namespace triptych::insight {

/// What kind of record an event is (the `cat` of the trace, names old and new folded together).
enum class Category : uint8_t {
  kOther,
  kCpuOp,
  kUserAnnotation,
  kGpuUserAnnotation,
  kKernel,
  kMemcpy,
  kMemset,
  kRuntime,
  kDriver,
  kSync,        ///< cuda_sync
  kCollective,  ///< mm_comm: one call of a collective or of a message, on one rank
  kModule,      ///< scopes of modules, layers, schedule actions
  kPython,
  kOverhead,
  kSpan,  ///< the collection's own marks; kept out of every analysis
};
std::string_view category_name(Category category);

/// What a stretch of work counts as in the sums of section 3.
enum class Work : uint8_t { kNone, kCompute, kCommunication, kMemory, kSync };
std::string_view work_name(Work work);

using StringId = uint32_t;
using EventId = uint32_t;  ///< position in the columns of one trace
constexpr uint32_t kNone = 0xffffffff;

/// A lane of the timeline: one thread, one stream, or one counter. Its events are the positions
/// [first_event, first_event + num_events), ordered by (depth, start): one row per depth.
struct Track {
  int64_t pid = 0, tid = 0;
  StringId name = 0;     ///< the thread's name, or "stream 7"
  StringId process = 0;  ///< the process's name
  int32_t device = -1;   ///< index of the device of a stream; -1 for a thread
  int32_t sort_index = 0;
  EventId first_event = 0;
  uint32_t num_events = 0;
  uint32_t first_row = 0;  ///< into Trace::rows()
  uint32_t num_rows = 0;
  int64_t begin_ns = 0, end_ns = 0;
  bool is_device() const { return device >= 0; }
};

/// Events of one depth of one track: sorted by start, hardly overlapping.
struct Row {
  EventId first_event = 0;
  uint32_t num_events = 0;
  uint32_t first_level = 0;  ///< into Trace::levels()
  uint32_t num_levels = 0;
};

/// Arguments of one collective or message, as far as the trace gives them. Sizes are in elements
/// of the dtype; bytes = -1 where neither was recorded.
struct Collective {
  EventId event = 0;
  StringId name = 0;         ///< "allreduce", "_allgather_base", ...
  StringId group = 0;        ///< process group name, or ""
  StringId group_tag = 0;    ///< "tp", "pp", "dp", ... or the description of the group
  StringId group_ranks = 0;  ///< "[0, 1, 2]" as recorded, or ""
  StringId dtype = 0;
  int32_t group_size = 0;
  int32_t src_rank = -1, dst_rank = -1;
  int64_t in_elements = -1, out_elements = -1;
  int64_t bytes = -1;
  int64_t sequence = -1;  ///< number of the call within its group
  int64_t wait_ns = -1;   ///< of `Wait us`, when recorded
  StringId in_split = 0;  ///< "[..]" of an all-to-all with uneven parts
  uint32_t reserved = 0;
};

/// Launch facts of a device kernel or copy.
struct KernelDetail {
  EventId event = 0;
  int32_t grid[3] = {0, 0, 0};
  int32_t block[3] = {0, 0, 0};
  int32_t registers = 0, shared_bytes = 0;
  float occupancy_percent = -1;
  uint32_t collective = kNone;  ///< into Trace::collectives()
  float bandwidth_gbps = 0;     ///< of a copy, as recorded
  int64_t bytes = -1;           ///< of a copy
};

/// What a host operator was called with.
struct OpDetail {
  EventId event = 0;
  StringId shapes = 0;  ///< text of `Input Dims`
  StringId types = 0;
  StringId concrete = 0;  ///< text of `Concrete Inputs`
  int64_t sequence = -1;  ///< links forward and backward
  int64_t forward_thread = 0;
};

/// One allocation (bytes > 0) or release (bytes < 0).
struct MemoryEvent {
  int64_t ts_ns = 0;
  uint64_t address = 0;
  int64_t bytes = 0;
  int64_t total_allocated = -1, total_reserved = -1;
  int32_t device_type = 0;  ///< 0 CPU, 1 CUDA
  int32_t device = -1;
  uint32_t track = kNone;
  StringId category = 0;  ///< "parameter", "activation", ... when the run recorded it
  StringId module = 0;    ///< its layer, likewise
  uint32_t unused = 0;    ///< no gap whose bytes are left to chance
};

/// An arrow between two events, both inside this trace.
struct Flow {
  EventId from = 0, to = 0;
};

struct CounterSample {
  int64_t ts_ns = 0;
  double value = 0;
  uint32_t track = kNone;  ///< counters have tracks of their own, without events
  uint32_t reserved = 0;
};

/// A step as the host saw it: the scope ProfilerStep#n.
struct Step {
  int64_t number = 0;
  int64_t begin_ns = 0, end_ns = 0;
  EventId event = 0;
  uint32_t track = 0;
  int64_t duration_ns() const { return end_ns - begin_ns; }
};

/// Level of detail of one row: buckets of 2^shift ns that hold at least one event.
struct Level {
  uint32_t shift = 0;
  uint32_t num_buckets = 0;
  uint64_t first_bucket = 0;  ///< into Trace::buckets()
};
struct Bucket {
  uint32_t index = 0;   ///< (ts - Trace::begin_ns) >> shift
  EventId longest = 0;  ///< the event that covers most of it
  uint32_t events = 0;  ///< starting in it
  float covered = 0;    ///< share of the bucket, 0..1
};

/// The arrays of a trace: one element an event in the first twelve, tables behind them.
struct TraceColumns {
  std::span<const int64_t> ts, dur;
  std::span<const uint64_t> args_offset;
  std::span<const uint32_t> name, parent, correlation, external, linked, detail;
  std::span<const uint16_t> depth;
  std::span<const uint8_t> category, work;
  std::span<const Track> tracks;
  std::span<const Row> rows;
  std::span<const Level> levels;
  std::span<const Bucket> buckets;
  std::span<const Collective> collectives;
  std::span<const KernelDetail> kernels;
  std::span<const OpDetail> ops;
  std::span<const MemoryEvent> memory;
  std::span<const Flow> flows;
  std::span<const CounterSample> counters;
  std::span<const Step> steps;
  std::span<const uint64_t> string_offsets;
  std::span<const char> string_bytes;
  std::span<const GzPoint> gz_points;
  std::span<const char> gz_windows;
};

/// One collected trace file of one rank, as columns. The same bytes lie in memory and in the index
/// file; opening an index maps them. Everything is read-only and may be used from any thread.
///
/// Times are ns relative to `base_ns` of the file; base_ns + ts is Unix time where the trace says.
class Trace {
 public:
  Trace() = default;

  size_t num_events() const { return columns_.ts.size(); }
  int64_t ts(EventId e) const { return columns_.ts[e]; }
  int64_t dur(EventId e) const { return columns_.dur[e]; }
  int64_t end(EventId e) const { return columns_.ts[e] + columns_.dur[e]; }
  StringId name_id(EventId e) const { return columns_.name[e]; }
  std::string_view name(EventId e) const { return string(columns_.name[e]); }
  Category category(EventId e) const { return static_cast<Category>(columns_.category[e]); }
  Work work(EventId e) const { return static_cast<Work>(columns_.work[e]); }
  uint32_t depth(EventId e) const { return columns_.depth[e]; }
  EventId parent(EventId e) const { return columns_.parent[e]; }  ///< kNone at the outermost level
  uint32_t track_of(EventId e) const;                             ///< by binary search
  uint32_t correlation(EventId e) const { return columns_.correlation[e]; }  ///< 0: none
  uint32_t external_id(EventId e) const { return columns_.external[e]; }     ///< 0: none
  /// The event whose launch this device event answers, kNone when unknown; for a launching call
  /// the first device event that it started.
  EventId linked(EventId e) const { return columns_.linked[e]; }
  uint32_t detail(EventId e) const {
    return columns_.detail[e];
  }  ///< into the table of its category
  const Collective* collective(EventId e) const;  ///< null: not one
  const KernelDetail* kernel(EventId e) const;
  const OpDetail* op(EventId e) const;

  std::span<const int64_t> ts_column() const { return columns_.ts; }
  std::span<const int64_t> dur_column() const { return columns_.dur; }
  std::span<const uint32_t> name_column() const { return columns_.name; }
  std::span<const Track> tracks() const { return columns_.tracks; }
  std::span<const Row> rows() const { return columns_.rows; }
  std::span<const Level> levels() const { return columns_.levels; }
  std::span<const Bucket> buckets() const { return columns_.buckets; }
  std::span<const Collective> collectives() const { return columns_.collectives; }
  std::span<const KernelDetail> kernels() const { return columns_.kernels; }
  std::span<const OpDetail> ops() const { return columns_.ops; }
  std::span<const MemoryEvent> memory() const { return columns_.memory; }  ///< by time
  std::span<const Flow> flows() const { return columns_.flows; }           ///< by `from`
  std::span<const CounterSample> counters() const { return columns_.counters; }
  std::span<const Step> steps() const { return columns_.steps; }  ///< by number; one per number

  size_t num_strings() const {
    return columns_.string_offsets.empty() ? 0 : columns_.string_offsets.size() - 1;
  }
  std::string_view string(StringId id) const;

  int64_t begin_ns() const { return begin_ns_; }
  int64_t end_ns() const { return end_ns_; }
  int64_t base_ns() const { return base_ns_; }
  bool has_device_work() const { return has_device_work_; }

  /// Top-level members of the file other than its events: distributedInfo, deviceProperties, mm...
  const Json& metadata() const { return *metadata_; }
  /// The rank that the header names.
  std::optional<int64_t> header_rank() const;
  /// What was repaired or left out while reading.
  const std::vector<std::string>& warnings() const { return *warnings_; }
  bool truncated() const { return truncated_; }

  /// The file that it was read from, and the arguments of an event, read from there again.
  /// @throws Error when the file has gone or changed.
  const std::filesystem::path& source() const { return source_; }
  Json arguments(EventId e) const;

  /// Bytes of the columns and tables.
  size_t image_bytes() const { return image_bytes_; }

 private:
  friend class TraceImage;
  std::shared_ptr<const void> image_;
  size_t image_bytes_ = 0;
  std::filesystem::path source_;
  TraceColumns columns_;
  int64_t begin_ns_ = 0, end_ns_ = 0, base_ns_ = 0;
  bool has_device_work_ = false, truncated_ = false;
  std::shared_ptr<const std::string> source_text_;  ///< of a trace that was not read from a file
  std::shared_ptr<const Json> metadata_;
  std::shared_ptr<const std::vector<std::string>> warnings_;
};

}  // namespace triptych::insight

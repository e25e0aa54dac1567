#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/trace.h"
#include "insight/trace_reader.h"

namespace triptych::insight {

/// A trace file of a run: which rank, which collection ("span").
struct TraceFile {
  std::filesystem::path path;
  uint64_t bytes = 0;
  int64_t rank = -1;
  int64_t span = 0;
  Trace trace;            ///< empty until loaded, and when `error` is set
  std::string error;      ///< why it could not be read
  int64_t offset_ns = 0;  ///< added to this trace's absolute times: clock alignment
  bool loaded = false;
};

/// Everything found below one folder: traces of ranks and spans, metrics, snapshots, settings.
///
/// Ids handed out to clients: a track id is `file << 16 | track`, a slice id is
/// `file * 2^32 + event`; both are exact in JSON numbers. `file` is the position in files().
/// Times handed out are ns since origin_ns(), after alignment of clocks.
class Run {
 public:
  /// Looks at names and headers only. `where` may be a run directory (`traces/` is looked for in
  /// it), a folder of traces, or single trace files.
  /// @throws Error when nothing is there.
  static Run find(const std::vector<std::filesystem::path>& where);

  /// A run of traces that were read before, one a rank in their order; it needs no load().
  static Run of(std::vector<Trace> traces);

  /// Reads all traces (or opens their indexes), `jobs` at a time, then aligns the clocks.
  /// A file that cannot be read gets `error`, the others go on. @throws Cancelled.
  void load(int jobs, LoadProgress* progress = nullptr, bool write_index = true);

  const std::filesystem::path& root() const { return root_; }
  const std::string& name() const { return name_; }
  const std::vector<TraceFile>& files() const { return files_; }
  const std::vector<std::filesystem::path>& snapshots() const { return snapshots_; }
  const std::optional<std::filesystem::path>& metrics_file() const { return metrics_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

  std::vector<int64_t> ranks() const;  ///< ascending, those with a readable trace
  std::vector<int64_t> spans() const;  ///< ascending
  int64_t world_size() const;          ///< as the traces say, at least the number of ranks seen
  /// Position in files(), or -1. span -1: the last one in which this rank occurs.
  int file_of(int64_t rank, int64_t span = -1) const;
  /// Positions of all ranks of one span (-1: the last), by rank.
  std::vector<int> files_of_span(int64_t span = -1) const;

  int64_t origin_ns() const { return origin_ns_; }  ///< Unix ns of time 0 of the timeline
  /// ns since the origin of a time of trace `file`.
  int64_t aligned(int file, int64_t ts_ns) const;
  int64_t unaligned(int file, int64_t run_ns) const;
  /// Corrects by hand ("align to this slice"): added on top of the estimated offset.
  void set_manual_offset(int file, int64_t offset_ns);

  /// XXH3 over paths, sizes and times of the files: changes when a cached answer is out of date.
  uint64_t fingerprint() const { return fingerprint_; }

  /// What one device can do at most, told by the user; 0: not told.
  double peak_flops_per_s() const { return peak_flops_per_s_; }
  void set_peak_flops_per_s(double value) { peak_flops_per_s_ = value; }

  /// The `mm` object of the first trace that has one (model, parallel sizes, ...), or null.
  Json model_info() const;

 private:
  friend struct ClockAlignment;
  void place_in_time();
  std::filesystem::path root_;
  std::string name_;
  std::vector<TraceFile> files_;
  std::vector<std::filesystem::path> snapshots_;
  std::optional<std::filesystem::path> metrics_;
  std::vector<std::string> warnings_;
  int64_t origin_ns_ = 0;
  uint64_t fingerprint_ = 0;
  double peak_flops_per_s_ = 0;
};

constexpr uint64_t slice_id(int file, EventId event) {
  return (static_cast<uint64_t>(file) << 32) | event;
}
constexpr uint32_t track_id(int file, uint32_t track) {
  return (static_cast<uint32_t>(file) << 16) | track;
}

}  // namespace triptych::insight

#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "insight/byte_source.h"
#include "insight/trace.h"

namespace triptych::insight {

/// An array that is not touched before it is written.
template <class T>
struct Column {
  std::unique_ptr<T[]> data;
  size_t size = 0;
  void allocate(size_t n) {
    data = std::make_unique_for_overwrite<T[]>(n);
    size = n;
  }
  const T* begin() const { return data.get(); }
  const T* end() const { return data.get() + size; }
  T& operator[](size_t i) { return data[i]; }
  const T& operator[](size_t i) const { return data[i]; }
  std::span<const T> span() const { return {data.get(), size}; }
};

/// Which state of which file an index belongs to.
struct SourceIdentity {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  uint64_t hash = 0;  ///< XXH3 of the first and last 64 KiB
  bool operator==(const SourceIdentity&) const = default;
};
SourceIdentity identify(const std::filesystem::path& path);

/// The columns of a trace while they are made; becomes a Trace, which can be written as an index
/// file and opened again by mapping it.
class TraceImage {
 public:
  Column<int64_t> ts, dur;
  Column<uint64_t> args_offset;
  Column<uint32_t> name, parent, correlation, external, linked, detail;
  Column<uint16_t> depth;
  Column<uint8_t> category, work;
  std::vector<Track> tracks;
  std::vector<Row> rows;
  std::vector<Level> levels;
  std::vector<Bucket> buckets;
  std::vector<Collective> collectives;
  std::vector<KernelDetail> kernels;
  std::vector<OpDetail> ops;
  std::vector<MemoryEvent> memory;
  std::vector<Flow> flows;
  std::vector<CounterSample> counters;
  std::vector<Step> steps;
  std::vector<uint64_t> string_offsets;
  std::vector<char> string_bytes;
  std::vector<GzPoint> gz_points;
  std::string gz_windows;
  struct Facts {
    int64_t begin_ns = 0, end_ns = 0, base_ns = 0;
    uint32_t has_device_work = 0, truncated = 0;
  } facts;
  Json metadata = Json::object();
  std::vector<std::string> warnings;
  std::filesystem::path source;

  void allocate_events(size_t n);

  /// Hands everything over.
  static Trace finish(std::unique_ptr<TraceImage> image);

  /// Arguments of events will be read from a copy of this text.
  static void keep_text(Trace& trace, std::string_view text) {
    trace.source_text_ = std::make_shared<const std::string>(text);
  }

  /// Writes beside `index` and renames. @throws Error (a full disk, a folder that is read-only).
  static void write(const Trace& trace, const std::filesystem::path& index,
                    const SourceIdentity& identity);

  /// Nothing when the index is absent, of another version, of another state of the source, or does
  /// not hold together; all numbers that are used as positions have been checked.
  static std::optional<Trace> open(const std::filesystem::path& index,
                                   const std::filesystem::path& source,
                                   const SourceIdentity& identity);

  /// `<trace>.mmidx`; and the place in the cache folder for traces in read-only folders.
  static std::filesystem::path index_beside(const std::filesystem::path& source);
  static std::filesystem::path index_in_cache(const std::filesystem::path& source);

 private:
  static bool holds_together(const Trace& trace);
};

}  // namespace triptych::insight

#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>

#include "insight/trace.h"

namespace triptych::insight {

/// Progress of a load, and the means to end it; all members may be used from any thread.
struct LoadProgress {
  std::atomic<uint64_t> bytes_done{0};  ///< of the files as they lie on disk
  std::atomic<uint64_t> bytes_total{0};
  std::atomic<uint32_t> files_done{0};
  std::atomic<uint32_t> files_total{0};
  std::atomic<bool> cancel{false};  ///< set it: the load throws Cancelled soon
};

/// The load was cancelled through LoadProgress.
class Cancelled : public std::exception {
 public:
  const char* what() const noexcept override { return "the load was cancelled"; }
};

struct ReadOptions {
  int jobs = 1;                     ///< threads that parse one plain file in parts
  uint64_t split_bytes = 64 << 20;  ///< a file is not cut into parts below this
  bool use_index = true;            ///< open `<file>.mmidx` when it belongs to the file
  bool write_index = true;  ///< write it after reading; beside the trace, else in the cache folder
  LoadProgress* progress = nullptr;
};

/// Reads one trace: Kineto or other Chrome JSON, the object or the bare array form, plain or gz.
/// Damage ends or skips as little as possible and is told in Trace::warnings().
/// @throws DataError when nothing of the file can be used (no such text at all), Error when it
///   cannot be read, Cancelled.
///
/// Cost: one pass at several hundred MB/s per thread; about 50 bytes per event stay in memory.
Trace read_trace(const std::filesystem::path& path, const ReadOptions& options = {});

/// The same for text in memory, without an index; `origin` is what messages call it.
Trace read_trace_text(std::string_view text, std::string_view origin);

}  // namespace triptych::insight

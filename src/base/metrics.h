#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/json.h"

namespace triptych {

/// metrics.jsonl: one object a line, on disk's side of the process as soon as write() returns.
/// Used from one thread of rank 0.
class MetricsFile {
 public:
  /// Opens for appending; a last line that a crash cut short is removed.
  explicit MetricsFile(const std::filesystem::path& path);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  /// Appends one row. Numbers are written so that they come back bit by bit, with at least nine
  /// significant digits where they are not whole. @throws Error on a full disk.
  void write(const Json& row);

  /// Takes out the rows whose "step" is above `step`: a run goes on from a checkpoint of that step.
  /// The file is replaced in one piece.
  void truncate_after_step(int64_t step);

  /// The "step" of the last row that has `key`; -1 when none has.
  int64_t last_step_with(std::string_view key) const;

 private:
  void open();
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace triptych

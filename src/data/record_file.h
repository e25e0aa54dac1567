#pragma once

// A file of training records, JSONL or one JSON array, of any size: mapped, indexed once, and
// handed out as spans of text. Nothing is parsed here beyond what finds a record's ends.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"

namespace triptych {

/// Where one record lies in its file.
struct RecordSpan {
  uint64_t begin = 0;
  uint32_t length = 0;  ///< bytes; a longer record is refused while indexing
  uint32_t line = 0;    ///< of its first byte, from 1
};

enum class RecordLayout { kLines, kArray };

struct RecordIndex {
  RecordLayout layout = RecordLayout::kLines;
  std::vector<RecordSpan> spans;
  /// What is wrong with the file as a whole ("name:line: ..."), e.g. an array without its end; the
  /// spans are the records before it. Empty for a good file.
  std::string problem;
};

/// Finds the records of `text` in one pass without recursion. A text whose first character is '['
/// is an array and its elements are the records; any other is JSONL and every line that is not
/// blank is one. A byte order mark is skipped.
/// @param name  what messages call the text
RecordIndex index_records(std::string_view text, std::string_view name);

/// A mapped and indexed record file. Reading from several threads is fine.
class RecordFile {
 public:
  /// @param shown_as  the path as messages should write it; empty: `path`
  /// @throws DataError when the file is no record file, is cut off or has no record; Error when it
  ///   cannot be read.
  explicit RecordFile(const std::filesystem::path& path, std::string shown_as = {});

  int64_t size() const { return static_cast<int64_t>(index_.spans.size()); }
  RecordLayout layout() const { return index_.layout; }
  const std::string& name() const { return name_; }

  /// The record's text; lives as long as this object. @param i in [0, size())
  std::string_view text(int64_t i) const;
  int64_t line(int64_t i) const { return index_.spans[static_cast<size_t>(i)].line; }

  /// "name:line" for JSONL, "name:line: record i" for an array, where lines say little. Messages
  /// count records from 1, as lines.
  std::string origin(int64_t i) const;

 private:
  std::string name_;
  MappedFile file_;
  RecordIndex index_;
};

/// The same words for a record that is known by its place only.
std::string record_origin(std::string_view name, RecordLayout layout, int64_t i, int64_t line);

}  // namespace triptych

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace triptych::insight {

/// A place in a gz file at which inflating can begin: the text that follows offset `out`.
struct GzPoint {
  uint64_t out = 0;   ///< bytes of text before it
  uint64_t in = 0;    ///< bytes of the file before it
  uint32_t bits = 0;  ///< bits of the byte before `in` that belong to what follows
  uint32_t window_size = 0;
  uint64_t window = 0;  ///< offset of its dictionary in the pool of windows
};

/// Bytes of a trace from front to back, inflated where needed. One thread at a time.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Up to `size` bytes; 0 only at the end.
  virtual size_t read(char* to, size_t size) = 0;
  /// Bytes of the file on disk used so far.
  virtual uint64_t disk_bytes() const = 0;
  /// Why the text ends before its proper end; empty when it does not.
  virtual std::string problem() const { return {}; }
  /// Places for open_at, as far as read; empty for plain files.
  virtual std::vector<GzPoint> points() const { return {}; }
  virtual std::string windows() const { return {}; }
};

bool is_gzip(const std::filesystem::path& path);

/// Inflating happens on a thread of its own, a few MB ahead of the reader.
/// @throws Error when the file cannot be opened.
std::unique_ptr<ByteSource> open_source(const std::filesystem::path& path);

/// A plain file from `offset` on.
std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path, uint64_t offset = 0);

/// `size` bytes of the text at `offset`, fewer at its end; for gz starting from the nearest point.
std::string read_text_at(const std::filesystem::path& path, uint64_t offset, size_t size,
                         const GzPoint* point, const char* window);

/// Text in memory.
std::unique_ptr<ByteSource> text_source(std::string_view text);

}  // namespace triptych::insight

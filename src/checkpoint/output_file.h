#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace triptych {

/// What a finished file is recognised by.
struct FileDigest {
  int64_t bytes = 0;
  uint64_t xxh3 = 0;
};

/// A file that appears complete or not at all: written under a temporary name beside it
/// (`.NAME.tmp-PID`), hashed on the way, flushed to disk, renamed. Large files go past the page
/// cache where the file system allows it: a tenth of the processor's time, and a training step
/// beside it keeps its memory. Used by one thread.
class OutputFile {
 public:
  /// @param expected_bytes reserved at once where the file system can, so that a full disk is
  ///   noticed before anything is written; 0 = unknown.
  /// @throws Error naming the path, the bytes needed and the bytes free.
  explicit OutputFile(std::filesystem::path path, int64_t expected_bytes = 0);
  /// Removes the temporary file unless `finish` succeeded.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// Flushes, renames, flushes the folder.
  FileDigest finish();

 private:
  void discard() noexcept;
  /// Writes the first `bytes` of the buffer.
  void flush_buffer(size_t bytes);
  void write_through(std::span<const std::byte> bytes);
  void leave_direct_mode();
  [[noreturn]] void fail_write(int error) const;

  std::filesystem::path path_, temporary_;
  int64_t expected_bytes_ = 0;
  int64_t written_ = 0;  ///< by the system; what is in the buffer comes on top
  int fd_ = -1;
  bool direct_ = false;  ///< past the page cache: offsets, sizes and addresses in whole blocks
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> buffer_;  ///< aligned; only in direct mode
  size_t buffered_ = 0;
  Xxh3 hash_;
};

/// Size and checksum of a file that is there.
FileDigest digest_of_file(const std::filesystem::path& path);

}  // namespace triptych

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace triptych {

/// A file mapped read-only into memory; the pages are read when first touched. Movable, not
/// copyable; the bytes live as long as this object. Reading from several threads is fine. If
/// another process truncates the file meanwhile, a read beyond its new end kills this one (SIGBUS).
class MappedFile {
 public:
  MappedFile() = default;

  /// @throws Error naming the path when it is missing, a folder or unreadable.
  explicit MappedFile(const std::filesystem::path& path);

  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

  /// Asks the system to start reading [begin, begin + length) now.
  void will_need(size_t begin, size_t length) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file; refuses one longer than `limit_bytes`, so that a wrong path cannot fill memory.
std::string read_file(const std::filesystem::path& path, uint64_t limit_bytes = 1ull << 30);

/// Replaces `path` so that a crash at any instant leaves either the old or the new content: writes
/// beside it, flushes to disk, renames, flushes the folder.
/// @throws Error with the path and the system's words, e.g. on a full disk; the old file stays.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

/// What is wrong with a name that someone wrote, "no such model file"; empty where there is
/// something of the kind, or where it cannot be looked at (opening it will tell why).
/// @param what  "model file", as messages call it
std::string file_problem(const std::filesystem::path& path, std::string_view what);
std::string folder_problem(const std::filesystem::path& path, std::string_view what);

/// A program that is started with standard input, output or error closed would give their numbers
/// to the next files that it opens, and then write messages into these. Fills them with /dev/null.
void keep_standard_descriptors();

/// Flushes a folder's list of names to disk; needed after a rename that must survive a power cut.
void sync_folder(const std::filesystem::path& folder);

/// Creates a folder and those above it; an existing one is fine.
void make_folders(const std::filesystem::path& folder);

/// "path: what: the system's words for errno".
[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view what);

}  // namespace triptych

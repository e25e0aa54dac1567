#pragma once

#include <zlib.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "insight/byte_source.h"

namespace triptych::insight {

/// A file read by position.
class FileReader {
 public:
  FileReader(const std::filesystem::path& path, uint64_t offset);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  size_t read(char* to, size_t size);
  uint64_t position() const { return at_; }

 private:
  std::filesystem::path path_;
  int file_ = -1;
  uint64_t at_ = 0;
};

/// Inflates a gz file (several members are allowed) from its begin or from a point. Never throws on
/// damage: the text then ends, and problem() says why.
class GzInflater {
 public:
  explicit GzInflater(const std::filesystem::path& path, const GzPoint* point = nullptr,
                      const char* window = nullptr);
  ~GzInflater();
  GzInflater(const GzInflater&) = delete;
  GzInflater& operator=(const GzInflater&) = delete;

  size_t read(char* to, size_t size);
  uint64_t disk_bytes() const { return file_.position() - stream_.avail_in; }
  const std::string& problem() const { return problem_; }

  /// Notes a point about every `distance` bytes of text; 0 (the default): none.
  void note_points(uint64_t distance) { distance_ = distance; }
  std::vector<GzPoint> points;
  std::string windows;

 private:
  void note_point();
  bool refill();
  bool next_member();

  FileReader file_;
  std::string input_;
  z_stream stream_{};
  bool raw_ = false;  ///< started from a point: no header, no checksum
  bool ended_ = false;
  uint64_t out_ = 0, distance_ = 0;
  std::string problem_;
};

/// A GzInflater on a thread of its own that stays a few blocks ahead.
class GzSource : public ByteSource {
 public:
  explicit GzSource(const std::filesystem::path& path);
  ~GzSource() override;
  size_t read(char* to, size_t size) override;
  uint64_t disk_bytes() const override;
  std::string problem() const override;
  std::vector<GzPoint> points() const override;
  std::string windows() const override;

 private:
  void work();

  GzInflater inflater_;  ///< the thread's, until it has ended
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> blocks_;
  size_t used_ = 0;  ///< of blocks_.front()
  uint64_t disk_bytes_ = 0;
  bool done_ = false, stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace triptych::insight

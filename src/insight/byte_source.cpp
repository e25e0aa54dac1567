#include "insight/byte_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "insight/gz_source.h"

namespace triptych::insight {

FileReader::FileReader(const std::filesystem::path& path, uint64_t offset)
    : path_(path), at_(offset) {
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) fail_errno(path, "cannot be opened");
  ::posix_fadvise(file_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

FileReader::~FileReader() { ::close(file_); }

size_t FileReader::read(char* to, size_t size) {
  for (;;) {
    const auto got = ::pread(file_, to, size, static_cast<off_t>(at_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno(path_, "cannot be read");
    at_ += static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }
}

namespace {

class PlainSource : public ByteSource {
 public:
  PlainSource(const std::filesystem::path& path, uint64_t offset) : file_(path, offset) {}
  size_t read(char* to, size_t size) override { return file_.read(to, size); }
  uint64_t disk_bytes() const override { return file_.position(); }

 private:
  FileReader file_;
};

class TextSource : public ByteSource {
 public:
  explicit TextSource(std::string_view text) : text_(text) {}
  size_t read(char* to, size_t size) override {
    const size_t n = std::min(size, text_.size() - at_);
    std::memcpy(to, text_.data() + at_, n);
    at_ += n;
    return n;
  }
  uint64_t disk_bytes() const override { return at_; }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

bool is_gzip(const std::filesystem::path& path) {
  FileReader file(path, 0);
  unsigned char magic[2] = {0, 0};
  return file.read(reinterpret_cast<char*>(magic), 2) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
}

std::unique_ptr<ByteSource> open_plain(const std::filesystem::path& path, uint64_t offset) {
  return std::make_unique<PlainSource>(path, offset);
}

std::unique_ptr<ByteSource> text_source(std::string_view text) {
  return std::make_unique<TextSource>(text);
}

std::unique_ptr<ByteSource> open_source(const std::filesystem::path& path) {
  if (is_gzip(path)) return std::make_unique<GzSource>(path);
  return open_plain(path);
}

std::string read_text_at(const std::filesystem::path& path, uint64_t offset, size_t size,
                         const GzPoint* point, const char* window) {
  std::string out(size, '\0');
  if (is_gzip(path)) {
    GzInflater inflater(path, point, window);
    std::string scratch(1 << 16, '\0');
    for (uint64_t skip = offset - (point ? point->out : 0); skip > 0;) {
      const size_t got = inflater.read(scratch.data(), std::min<uint64_t>(skip, scratch.size()));
      if (got == 0) return {};
      skip -= got;
    }
    size_t have = 0;
    while (have < size) {
      const size_t got = inflater.read(out.data() + have, size - have);
      if (got == 0) break;
      have += got;
    }
    out.resize(have);
    return out;
  }
  FileReader file(path, offset);
  size_t have = 0;
  while (have < size) {
    const size_t got = file.read(out.data() + have, size - have);
    if (got == 0) break;
    have += got;
  }
  out.resize(have);
  return out;
}

}  // namespace triptych::insight

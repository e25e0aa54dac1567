#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/descriptor.h"
#include "base/error.h"

namespace triptych {
namespace {

struct stat checked_stat(int fd, const std::filesystem::path& path) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) fail_errno(path, "cannot be examined");
  require(!S_ISDIR(info.st_mode), path.string(), ": is a folder, a file is expected");
  return info;
}

int open_to_read(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_errno(path, "cannot be read");
  return fd;
}

void write_all(int fd, std::string_view text, const std::filesystem::path& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "cannot be written");
    text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

void fail_errno(const std::filesystem::path& path, std::string_view what) {
  fail(path.string(), ": ", what, ": ", std::strerror(errno));
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor file(open_to_read(path));
  const struct stat info = checked_stat(file.get(), path);
  require(S_ISREG(info.st_mode), path.string(), ": is not a regular file, cannot be mapped");
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;  // a mapping of length 0 is refused by the system
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) fail_errno(path, "cannot be mapped");
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::will_need(size_t begin, size_t length) const {
  if (data_ == nullptr || begin >= size_) return;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t start = begin / page * page;
  const size_t end = begin + std::min(length, size_ - begin);
  ::madvise(const_cast<std::byte*>(data_) + start, end - start, MADV_WILLNEED);  // only a hint
}

std::string read_file(const std::filesystem::path& path, uint64_t limit_bytes) {
  const Descriptor file(open_to_read(path));
  const struct stat info = checked_stat(file.get(), path);
  std::string content;
  if (S_ISREG(info.st_mode)) {
    require(static_cast<uint64_t>(info.st_size) <= limit_bytes, path.string(), ": has ",
            info.st_size, " bytes, at most ", limit_bytes, " are read");
    content.reserve(static_cast<size_t>(info.st_size));
  }
  char buffer[1 << 16];
  for (;;) {  // the size above is a hint only: pipes and /proc files say 0
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "cannot be read");
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    require(content.size() <= limit_bytes, path.string(), ": is longer than ", limit_bytes,
            " bytes, the most that is read");
  }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  static std::atomic<int> serial{0};  // two threads may write the same file
  std::filesystem::path temporary = path;
  temporary += ".tmp" + std::to_string(::getpid()) + "_" + std::to_string(serial++);
  Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.get() < 0) fail_errno(path, "cannot be written");
  try {
    write_all(file.get(), content, path);
    if (::fsync(file.get()) != 0) fail_errno(path, "cannot be flushed to disk");
    if (::close(file.release()) != 0) fail_errno(path, "cannot be closed");
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_errno(path, "cannot be replaced");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(path.parent_path());
}

std::string file_problem(const std::filesystem::path& path, std::string_view what) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    return detail::join_parts("no such ", what);
  if (std::filesystem::is_directory(status))
    return detail::join_parts("is a folder, a ", what, " is expected");
  return {};
}

std::string folder_problem(const std::filesystem::path& path, std::string_view what) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found)
    return detail::join_parts("no such ", what);
  if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
    return detail::join_parts("is a file, a ", what, " is expected");
  return {};
}

void keep_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // open takes the lowest free number, which is this one
    if (::open("/dev/null", O_RDWR) < 0) fail_errno("/dev/null", "cannot be opened");
  }
}

void sync_folder(const std::filesystem::path& folder) {
  const std::filesystem::path name = folder.empty() ? std::filesystem::path(".") : folder;
  const Descriptor file(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.get() < 0) fail_errno(name, "cannot be opened");
  // Some network file systems do not know fsync on folders; they have nothing to flush then.
  if (::fsync(file.get()) != 0 && errno != EINVAL && errno != EROFS) {
    fail_errno(name, "cannot be flushed to disk");
  }
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  require(!error, folder.string(), ": cannot be created: ", error.message());
}

}  // namespace triptych

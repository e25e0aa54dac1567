#include "base/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/error.h"
#include "base/files.h"

namespace triptych {
namespace {

constexpr uint64_t kLimitBytes = uint64_t{4} << 30;

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path) : path_(path) {
  if (std::filesystem::exists(path)) {
    const std::string text = read_file(path, kLimitBytes);
    if (!text.empty() && text.back() != '\n') {
      const size_t end = text.rfind('\n');
      write_file_atomically(
          path, std::string_view(text).substr(0, end == std::string::npos ? 0 : end + 1));
    }
  }
  open();
}

MetricsFile::~MetricsFile() {
  if (file_ >= 0) ::close(file_);
}

void MetricsFile::open() {
  file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail_errno(path_, "cannot be written");
}

void MetricsFile::write(const Json& row) {
  const std::string line = dump_json(row) + "\n";
  std::string_view left = line;
  while (!left.empty()) {
    const ssize_t n = ::write(file_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path_, "cannot be written");
    left.remove_prefix(static_cast<size_t>(n));
  }
}

void MetricsFile::truncate_after_step(int64_t step) {
  const std::string text = read_file(path_, kLimitBytes);
  std::string kept;
  for (size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end;
    const Json row = parse_json(line, path_.string() + ":" + std::to_string(number));
    if (row.is_object() && row.contains("step") && row["step"].is_number_integer() &&
        row["step"].get<int64_t>() > step) {
      continue;
    }
    kept += line;
  }
  if (kept.size() == text.size()) return;
  ::close(file_);
  file_ = -1;
  write_file_atomically(path_, kept);
  open();
}

int64_t MetricsFile::last_step_with(std::string_view key) const {
  const std::string text = read_file(path_, kLimitBytes);
  for (size_t end = text.size(); end > 0;) {  // whole lines, each with its end
    const size_t before = end < 2 ? std::string::npos : text.rfind('\n', end - 2);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    const Json row = parse_json(std::string_view(text).substr(begin, end - begin), path_.string());
    end = begin;
    if (row.is_object() && row.contains(std::string(key)) && row.contains("step") &&
        row["step"].is_number_integer()) {
      return row["step"].get<int64_t>();
    }
  }
  return -1;
}

}  // namespace triptych

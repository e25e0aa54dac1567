#include "base/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>

#include "base/clock.h"
#include "base/files.h"
#include "base/format.h"
#include "base/hash.h"

namespace triptych {
namespace {

template <class T>
void put_little_endian(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}

enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_key(std::string& out, int number, WireType type) {
  put_varint(out, static_cast<uint64_t>(number) << 3 | type);
}

void put_bytes(std::string& out, int number, std::string_view bytes) {
  put_key(out, number, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_double(std::string& out, int number, double value) {
  put_key(out, number, kFixed64);
  put_little_endian(out, std::bit_cast<uint64_t>(value));
}

}  // namespace

std::string event_record(std::string_view event) {
  std::string record;
  put_little_endian(record, uint64_t{event.size()});
  put_little_endian(record, crc32c_masked(crc32c(record)));
  record += event;
  put_little_endian(record, crc32c_masked(crc32c(event)));
  return record;
}

std::string version_event(double wall_seconds) {
  std::string event;
  put_double(event, 1, wall_seconds);
  put_bytes(event, 3, "brain.Event:2");
  return event;
}

std::string scalar_event(double wall_seconds, int64_t step,
                         std::span<const std::pair<std::string, double>> scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    put_bytes(value, 1, tag);
    put_key(value, 2, kFixed32);
    put_little_endian(value, std::bit_cast<uint32_t>(static_cast<float>(number)));
    put_bytes(summary, 1, value);
  }
  std::string event;
  put_double(event, 1, wall_seconds);
  put_key(event, 2, kVarint);
  put_varint(event, static_cast<uint64_t>(step));
  put_bytes(event, 5, summary);
  return event;
}

EventWriter::EventWriter(const std::filesystem::path& folder) {
  make_folders(folder);
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const double now = wall_seconds();
  path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}", static_cast<int64_t>(now), host,
                               ::getpid());
  file_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0) fail_errno(path_, "cannot be written");
  append(version_event(now));
}

EventWriter::~EventWriter() {
  if (file_ >= 0) ::close(file_);
}

void EventWriter::append(const std::string& event) {
  const std::string record = event_record(event);
  std::string_view left = record;
  while (!left.empty()) {
    const ssize_t n = ::write(file_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path_, "cannot be written");
    left.remove_prefix(static_cast<size_t>(n));
  }
}

void EventWriter::write(int64_t step, std::span<const std::pair<std::string, double>> scalars) {
  append(scalar_event(wall_seconds(), step, scalars));
}

}  // namespace triptych

#include "profile/trace_writer.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <charconv>
#include <optional>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "profile/memory_events.h"
#include "profile/own_events.h"

namespace triptych {

namespace {

namespace fs = std::filesystem;

/// Removes what is left of an attempt.
class Leftover {
 public:
  explicit Leftover(fs::path path) : path_(std::move(path)) {}
  ~Leftover() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  Leftover(const Leftover&) = delete;
  Leftover& operator=(const Leftover&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A gzip file that is written from front to back.
class GzipFile {
 public:
  explicit GzipFile(const fs::path& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_errno(path, "cannot be created");
    constexpr int kLevel = 2, kGzip = 15 + 16;
    require(deflateInit2(&stream_, kLevel, Z_DEFLATED, kGzip, 9, Z_DEFAULT_STRATEGY) == Z_OK,
            path.string(), ": zlib cannot start");
  }
  ~GzipFile() {
    deflateEnd(&stream_);
    if (fd_ >= 0) ::close(fd_);
  }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  void add(std::string_view text) {
    constexpr size_t kPiece = size_t{1} << 20;
    for (size_t at = 0; at < text.size(); at += kPiece) deflate_piece(text.substr(at, kPiece), 0);
  }
  void finish() {
    deflate_piece({}, Z_FINISH);
    if (::fsync(fd_) != 0) fail_errno(path_, "cannot be flushed");
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) != 0) fail_errno(path_, "cannot be closed");
  }

 private:
  void deflate_piece(std::string_view text, int flush) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream_.avail_in = static_cast<uInt>(text.size());
    do {
      stream_.next_out = reinterpret_cast<Bytef*>(buffer_.data());
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      deflate(&stream_, flush);
      write_out(buffer_.size() - stream_.avail_out);
    } while (stream_.avail_out == 0);
  }
  void write_out(size_t count) {
    for (size_t at = 0; at < count;) {
      const auto written = ::write(fd_, buffer_.data() + at, count - at);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail_errno(path_, "cannot be written");
      at += static_cast<size_t>(written);
    }
  }

  fs::path path_;
  int fd_;
  z_stream stream_{};
  std::vector<char> buffer_ = std::vector<char>(size_t{256} << 10);
};

/// Where our parts go in Kineto's text.
struct Cuts {
  size_t header = 0;  ///< behind the outermost "{"
  size_t events = 0;  ///< behind the "[" of traceEvents
  int64_t base_ns = 0;
};

Cuts find_cuts(std::string_view text, std::string_view origin) {
  Cuts cuts;
  const auto open = text.find('{');
  const auto last = text.find_last_not_of(" \n\r\t");
  constexpr std::string_view kEvents = "\"traceEvents\":", kBase = "\"baseTimeNanoseconds\":";
  const auto events = text.find(kEvents);
  // Kineto says nothing when its file could not be written to the end.
  require(open != std::string_view::npos && events != std::string_view::npos && text[last] == '}' &&
              text.substr(events).size() > kEvents.size(),
          origin, ": Kineto's trace is cut short at ", text.size(), " bytes; is the disk full?");
  cuts.header = open + 1;
  cuts.events = text.find('[', events) + 1;
  const auto base = text.substr(0, events).find(kBase);
  if (base != std::string_view::npos) {
    auto at = base + kBase.size();
    while (text[at] == ' ') ++at;
    std::from_chars(text.data() + at, text.data() + events, cuts.base_ns);
  }
  return cuts;
}

std::string header_text(const Json& header) {
  std::string text;
  for (const auto& [key, value] : header.items())
    text += fmt::format("\n  {}: {},", dump_json(Json(key)), dump_json(value));
  return text;
}

}  // namespace

std::string trace_stem(int64_t rank, int64_t pid, int64_t time_ns) {
  return fmt::format("rank-{}_{}.{}", rank, pid, time_ns);
}

void write_trace(TraceParts parts, const fs::path& stem) {
  make_folders(stem.parent_path());
  // Hidden, and of a name that no viewer looks for.
  const auto beside = [&](const char* ending) {
    return stem.parent_path() / ("." + stem.filename().string() + ending);
  };
  const Leftover kineto(beside(".kineto")), unfinished(beside(".kineto.tmp")),
      packed(beside(".part"));
  GzipFile file(packed.path());  // before the work: an unwritable folder is known at once
  const auto nodes = parts.collected->write(kineto.path());
  parts.collected.reset();
  require(fs::exists(kineto.path()), kineto.path().string(),
          ": Kineto could not write its trace here; is the disk full?");
  {
    const MappedFile mapped(kineto.path());
    const auto text = mapped.text();
    const auto cuts = find_cuts(text, stem.string());
    file.add(text.substr(0, cuts.header));
    file.add(header_text(parts.header));
    file.add(text.substr(cuts.header, cuts.events - cuts.header));
    file.add(own_events(parts.records, nodes, cuts.base_ns, ::getpid()));
    const StackNames stacks(parts.stacks);
    if (parts.memory)
      write_memory_events(*parts.memory, stacks, cuts.base_ns, ::getpid(), parts.memory_device,
                          [&](std::string_view text) { file.add(text); });
    put_with_stacks(text.substr(cuts.events), cuts.base_ns, parts.stacks.operators, stacks,
                    [&](std::string_view piece) { file.add(piece); });
    file.finish();
  }
  fs::path final_name = stem;
  final_name += ".pt.trace.json.gz";
  fs::rename(packed.path(), final_name);
  sync_folder(final_name.parent_path());
}

}  // namespace triptych

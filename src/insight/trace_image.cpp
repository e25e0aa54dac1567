#include "insight/trace_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <tuple>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {
namespace {

constexpr char kMagic[8] = {'T', 'R', 'I', 'P', 'I', 'D', 'X', '\n'};
constexpr uint32_t kVersion = 4;
constexpr size_t kAlign = 64;

struct Section {
  uint32_t element_bytes = 0, reserved = 0;
  uint64_t offset = 0, count = 0;
};
constexpr size_t kSections = 29;

struct Header {
  char magic[8];
  uint32_t version = kVersion, num_sections = kSections;
  SourceIdentity identity;
  uint64_t file_bytes = 0;
  TraceImage::Facts facts;
  Section sections[kSections];
  uint64_t header_hash = 0;
};

/// The arrays of TraceColumns or TraceImage, in the order of the sections.
template <class T>
auto arrays(T& t) {
  return std::tie(t.ts, t.dur, t.args_offset, t.name, t.parent, t.correlation, t.external, t.linked,
                  t.detail, t.depth, t.category, t.work, t.tracks, t.rows, t.levels, t.buckets,
                  t.collectives, t.kernels, t.ops, t.memory, t.flows, t.counters, t.steps,
                  t.string_offsets, t.string_bytes, t.gz_points, t.gz_windows);
}

/// All sections of an index: the arrays, then two texts.
template <class Text, class F>
void for_each_section(auto& columns, Text& metadata, Text& warnings, F&& f) {
  std::apply([&](auto&... array) { (f(array), ...); }, arrays(columns));
  f(metadata), f(warnings);
}

void write_all(int file, const std::filesystem::path& path, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const auto put = ::write(file, at, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_errno(path, "cannot be written");
    at += put;
    size -= static_cast<size_t>(put);
  }
}

std::span<const char> chars(const std::string& text) { return {text.data(), text.size()}; }

bool all_below(std::span<const uint32_t> values, size_t limit, bool none_allowed) {
  uint32_t bad = 0;
  for (const uint32_t v : values)
    bad |= static_cast<uint32_t>(v >= limit && !(none_allowed && v == kNone));
  return bad == 0;
}

}  // namespace

SourceIdentity identify(const std::filesystem::path& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) fail_errno(path, "cannot be read");
  SourceIdentity id;
  id.bytes = static_cast<uint64_t>(status.st_size);
  id.modified_ns = status.st_mtim.tv_sec * 1000000000ll + status.st_mtim.tv_nsec;
  constexpr uint64_t kPart = 64 << 10;
  const auto source = open_plain(path);
  std::string bytes(kPart, '\0');
  bytes.resize(source->read(bytes.data(), kPart));
  if (id.bytes > kPart) {
    std::string tail(kPart, '\0');
    tail.resize(open_plain(path, id.bytes - kPart)->read(tail.data(), kPart));
    bytes += tail;
  }
  id.hash = xxh3_64(bytes);
  return id;
}

void TraceImage::allocate_events(size_t n) {
  ts.allocate(n), dur.allocate(n), args_offset.allocate(n), name.allocate(n), parent.allocate(n);
  correlation.allocate(n), external.allocate(n), linked.allocate(n), detail.allocate(n);
  depth.allocate(n), category.allocate(n), work.allocate(n);
}

Trace TraceImage::finish(std::unique_ptr<TraceImage> image) {
  std::shared_ptr<TraceImage> shared = std::move(image);
  Trace t;
  size_t bytes = 0;
  const auto refer = [&](auto& to, const auto& from) {
    to = {from.begin(), from.end()};
    bytes += to.size_bytes();
  };
  std::apply(
      [&](auto&... to) {
        std::apply([&](auto&... from) { (refer(to, from), ...); }, arrays(*shared));
      },
      arrays(t.columns_));
  t.begin_ns_ = shared->facts.begin_ns;
  t.end_ns_ = shared->facts.end_ns;
  t.base_ns_ = shared->facts.base_ns;
  t.has_device_work_ = shared->facts.has_device_work != 0;
  t.truncated_ = shared->facts.truncated != 0;
  t.metadata_ = std::shared_ptr<const Json>(shared, &shared->metadata);
  t.warnings_ = std::shared_ptr<const std::vector<std::string>>(shared, &shared->warnings);
  t.source_ = shared->source;
  t.image_bytes_ = bytes;
  t.image_ = shared;
  return t;
}

void TraceImage::write(const Trace& trace, const std::filesystem::path& index,
                       const SourceIdentity& identity) {
  const std::string metadata = dump_json(trace.metadata());
  Json warning_list = Json::array();
  for (const auto& warning : trace.warnings()) warning_list.push_back(warning);
  const std::string warnings = dump_json(warning_list);
  Trace t = trace;
  auto metadata_span = chars(metadata), warnings_span = chars(warnings);
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.identity = identity;
  header.facts = {t.begin_ns_, t.end_ns_, t.base_ns_, t.has_device_work_, t.truncated_};
  uint64_t at = (sizeof(Header) + kAlign - 1) / kAlign * kAlign;
  size_t number = 0;
  for_each_section(t.columns_, metadata_span, warnings_span, [&](const auto& span) {
    auto& section = header.sections[number++];
    section = {static_cast<uint32_t>(sizeof span[0]), 0, at, span.size()};
    at = (at + span.size_bytes() + kAlign - 1) / kAlign * kAlign;
  });
  header.file_bytes = at;
  header.header_hash =
      xxh3_64({reinterpret_cast<const char*>(&header), offsetof(Header, header_hash)});

  auto temporary = index;
  temporary += "." + std::to_string(::getpid()) + ".tmp";
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) fail_errno(temporary, "cannot be written");
  try {
    uint64_t written = 0;
    const std::string zeros(kAlign, '\0');
    const auto put = [&](const void* data, size_t size) {
      write_all(file, temporary, data, size);
      const size_t padding = (kAlign - size % kAlign) % kAlign;
      write_all(file, temporary, zeros.data(), padding);
      written += size + padding;
    };
    put(&header, sizeof header);
    for_each_section(t.columns_, metadata_span, warnings_span,
                     [&](const auto& span) { put(span.data(), span.size_bytes()); });
    require(written == header.file_bytes, "internal: index sections do not add up");
  } catch (...) {
    ::close(file);
    ::unlink(temporary.c_str());
    throw;
  }
  ::close(file);
  if (::rename(temporary.c_str(), index.c_str()) != 0) {
    ::unlink(temporary.c_str());
    fail_errno(index, "cannot be replaced");
  }
}

bool TraceImage::holds_together(const Trace& trace) {
  const TraceColumns& t = trace.columns_;
  const size_t n = t.ts.size();
  for (const size_t size : {t.dur.size(), t.args_offset.size(), t.name.size(), t.parent.size(),
                            t.correlation.size(), t.external.size(), t.linked.size(),
                            t.detail.size(), t.depth.size(), t.category.size(), t.work.size()})
    if (size != n) return false;
  if (t.string_offsets.empty() || t.string_offsets.back() != t.string_bytes.size() ||
      !std::ranges::is_sorted(t.string_offsets))
    return false;
  if (!all_below(t.name, trace.num_strings(), false) || !all_below(t.parent, n, true) ||
      !all_below(t.linked, n, true))
    return false;
  uint64_t events = 0, rows = 0;
  for (const auto& track : t.tracks) {
    if (track.first_event != events || track.first_row != rows) return false;
    events += track.num_events;
    rows += track.num_rows;
  }
  if (events != n || rows != t.rows.size() || t.tracks.size() > 0xffff) return false;
  uint64_t of_rows = 0, levels = 0, buckets = 0;
  for (const auto& row : t.rows) {
    if (row.first_event != of_rows || row.first_level != levels) return false;
    of_rows += row.num_events;
    levels += row.num_levels;
  }
  for (const auto& level : t.levels) {
    if (level.first_bucket != buckets || level.shift > 62) return false;
    buckets += level.num_buckets;
  }
  if (of_rows != n || levels != t.levels.size() || buckets != t.buckets.size()) return false;
  const auto below_n = [&](const auto& table, auto member) {
    return std::ranges::all_of(table, [&](const auto& row) { return row.*member < n; });
  };
  const auto tracks = t.tracks.size();
  return below_n(t.buckets, &Bucket::longest) && below_n(t.collectives, &Collective::event) &&
         below_n(t.kernels, &KernelDetail::event) && below_n(t.ops, &OpDetail::event) &&
         below_n(t.steps, &Step::event) && below_n(t.flows, &Flow::from) &&
         below_n(t.flows, &Flow::to) &&
         std::ranges::all_of(t.steps, [&](const Step& s) { return s.track < tracks; }) &&
         std::ranges::all_of(t.counters, [&](const auto& c) { return c.track < tracks; }) &&
         std::ranges::all_of(t.memory,
                             [&](const auto& m) { return m.track == kNone || m.track < tracks; }) &&
         std::ranges::all_of(t.gz_points,
                             [&](const GzPoint& p) {
                               return p.bits < 8 && p.window_size <= 32768 &&
                                      p.window <= t.gz_windows.size() &&
                                      p.window_size <= t.gz_windows.size() - p.window;
                             }) &&
         std::ranges::all_of(
             t.category, [](uint8_t c) { return c <= static_cast<uint8_t>(Category::kSpan); }) &&
         std::ranges::all_of(t.work,
                             [](uint8_t w) { return w <= static_cast<uint8_t>(Work::kSync); });
}

std::optional<Trace> TraceImage::open(const std::filesystem::path& index,
                                      const std::filesystem::path& source,
                                      const SourceIdentity& identity) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(index, ignored)) return std::nullopt;
  auto file = std::make_shared<MappedFile>(index);
  if (file->size() < sizeof(Header)) return std::nullopt;
  Header header;
  std::memcpy(&header, file->bytes().data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.version != kVersion ||
      header.num_sections != kSections || !(header.identity == identity) ||
      header.file_bytes != file->size() ||
      header.header_hash !=
          xxh3_64({reinterpret_cast<const char*>(&header), offsetof(Header, header_hash)}))
    return std::nullopt;
  Trace t;
  std::span<const char> metadata, warnings;
  size_t number = 0;
  bool good = true;
  for_each_section(t.columns_, metadata, warnings, [&](auto& span) {
    using T = std::remove_cvref_t<decltype(span[0])>;
    const auto& s = header.sections[number++];
    good = good && s.element_bytes == sizeof(T) && s.offset % kAlign == 0 &&
           s.offset <= file->size() && s.count <= (file->size() - s.offset) / sizeof(T);
    if (good) span = {reinterpret_cast<const T*>(file->bytes().data() + s.offset), s.count};
  });
  if (!good || !holds_together(t)) return std::nullopt;
  t.begin_ns_ = header.facts.begin_ns;
  t.end_ns_ = header.facts.end_ns;
  t.base_ns_ = header.facts.base_ns;
  t.has_device_work_ = header.facts.has_device_work != 0;
  t.truncated_ = header.facts.truncated != 0;
  t.metadata_ = std::make_shared<Json>(parse_tolerant({metadata.data(), metadata.size()}));
  std::vector<std::string> list;
  for (const auto& warning : parse_tolerant({warnings.data(), warnings.size()}))
    if (warning.is_string()) list.push_back(warning.get<std::string>());
  t.warnings_ = std::make_shared<const std::vector<std::string>>(std::move(list));
  t.source_ = source;
  t.image_bytes_ = file->size();
  t.image_ = file;
  return t;
}

std::filesystem::path TraceImage::index_beside(const std::filesystem::path& source) {
  auto path = source;
  path += ".mmidx";
  return path;
}

std::filesystem::path TraceImage::index_in_cache(const std::filesystem::path& source) {
  std::filesystem::path cache;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg)
    cache = xdg;
  else if (const char* home = std::getenv("HOME"); home && *home)
    cache = std::filesystem::path(home) / ".cache";
  else
    return {};
  const auto whole = std::filesystem::absolute(source).lexically_normal().string();
  return cache / "triptych" / "insight" / (hex64(xxh3_64(whole)) + ".mmidx");
}

}  // namespace triptych::insight

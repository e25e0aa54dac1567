#include "insight/trace_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {
namespace {

constexpr char kMagic[8] = {'T', 'R', 'I', 'P', 'I', 'D', 'X', '\n'};
constexpr uint32_t kVersion = 2;
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

/// Visits every array of a trace in the order of the sections.
template <class Trace, class F>
void for_each_section(Trace&& t, F&& f) {
  f(t.ts), f(t.dur), f(t.args_offset), f(t.name), f(t.parent), f(t.correlation), f(t.external);
  f(t.linked), f(t.detail), f(t.depth), f(t.category), f(t.work), f(t.tracks), f(t.rows);
  f(t.levels), f(t.buckets), f(t.collectives), f(t.kernels), f(t.ops), f(t.memory), f(t.flows);
  f(t.counters), f(t.steps), f(t.string_offsets), f(t.string_bytes), f(t.gz_points);
  f(t.gz_windows), f(t.metadata), f(t.warnings);
}

/// References to the spans of a Trace under the names above.
struct Spans {
  std::span<const int64_t>&ts, &dur;
  std::span<const uint64_t>& args_offset;
  std::span<const uint32_t>&name, &parent, &correlation, &external, &linked, &detail;
  std::span<const uint16_t>& depth;
  std::span<const uint8_t>&category, &work;
  std::span<const Track>& tracks;
  std::span<const Row>& rows;
  std::span<const Level>& levels;
  std::span<const Bucket>& buckets;
  std::span<const Collective>& collectives;
  std::span<const KernelDetail>& kernels;
  std::span<const OpDetail>& ops;
  std::span<const MemoryEvent>& memory;
  std::span<const Flow>& flows;
  std::span<const CounterSample>& counters;
  std::span<const Step>& steps;
  std::span<const uint64_t>& string_offsets;
  std::span<const char>& string_bytes;
  std::span<const GzPoint>& gz_points;
  std::span<const char>& gz_windows;
  std::span<const char>&metadata, &warnings;
};

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
  const auto vector = [&](auto& to, const auto& from) {
    to = {from.data(), from.size()};
    bytes += to.size_bytes();
  };
  const auto column = [&](auto& to, const auto& from) {
    to = from.span();
    bytes += to.size_bytes();
  };
  column(t.ts_, shared->ts), column(t.dur_, shared->dur),
      column(t.args_offset_, shared->args_offset);
  column(t.name_, shared->name), column(t.parent_, shared->parent);
  column(t.correlation_, shared->correlation), column(t.external_, shared->external);
  column(t.linked_, shared->linked), column(t.detail_, shared->detail);
  column(t.depth_, shared->depth), column(t.category_, shared->category);
  column(t.work_, shared->work);
  vector(t.tracks_, shared->tracks), vector(t.rows_, shared->rows),
      vector(t.levels_, shared->levels);
  vector(t.buckets_, shared->buckets), vector(t.collectives_, shared->collectives);
  vector(t.kernels_, shared->kernels), vector(t.ops_, shared->ops),
      vector(t.memory_, shared->memory);
  vector(t.flows_, shared->flows), vector(t.counters_, shared->counters);
  vector(t.steps_, shared->steps), vector(t.string_offsets_, shared->string_offsets);
  vector(t.string_bytes_, shared->string_bytes), vector(t.gz_points_, shared->gz_points);
  vector(t.gz_windows_, shared->gz_windows);
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
  const Spans spans{t.ts_,           t.dur_,         t.args_offset_, t.name_,
                    t.parent_,       t.correlation_, t.external_,    t.linked_,
                    t.detail_,       t.depth_,       t.category_,    t.work_,
                    t.tracks_,       t.rows_,        t.levels_,      t.buckets_,
                    t.collectives_,  t.kernels_,     t.ops_,         t.memory_,
                    t.flows_,        t.counters_,    t.steps_,       t.string_offsets_,
                    t.string_bytes_, t.gz_points_,   t.gz_windows_,  metadata_span,
                    warnings_span};
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.identity = identity;
  header.facts = {t.begin_ns_, t.end_ns_, t.base_ns_, t.has_device_work_, t.truncated_};
  uint64_t at = (sizeof(Header) + kAlign - 1) / kAlign * kAlign;
  size_t number = 0;
  for_each_section(spans, [&](const auto& span) {
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
    for_each_section(spans, [&](const auto& span) { put(span.data(), span.size_bytes()); });
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

bool TraceImage::holds_together(const Trace& t) {
  const size_t n = t.ts_.size();
  for (const size_t size : {t.dur_.size(), t.args_offset_.size(), t.name_.size(), t.parent_.size(),
                            t.correlation_.size(), t.external_.size(), t.linked_.size(),
                            t.detail_.size(), t.depth_.size(), t.category_.size(), t.work_.size()})
    if (size != n) return false;
  if (t.string_offsets_.empty() || t.string_offsets_.back() != t.string_bytes_.size() ||
      !std::ranges::is_sorted(t.string_offsets_))
    return false;
  if (!all_below(t.name_, t.num_strings(), false) || !all_below(t.parent_, n, true) ||
      !all_below(t.linked_, n, true))
    return false;
  uint64_t events = 0, rows = 0;
  for (const auto& track : t.tracks_) {
    if (track.first_event != events || track.first_row != rows) return false;
    events += track.num_events;
    rows += track.num_rows;
  }
  if (events != n || rows != t.rows_.size() || t.tracks_.size() > 0xffff) return false;
  uint64_t of_rows = 0, levels = 0, buckets = 0;
  for (const auto& row : t.rows_) {
    if (row.first_event != of_rows || row.first_level != levels) return false;
    of_rows += row.num_events;
    levels += row.num_levels;
  }
  for (const auto& level : t.levels_) {
    if (level.first_bucket != buckets || level.shift > 62) return false;
    buckets += level.num_buckets;
  }
  if (of_rows != n || levels != t.levels_.size() || buckets != t.buckets_.size()) return false;
  const auto below_n = [&](const auto& table, auto member) {
    return std::ranges::all_of(table, [&](const auto& row) { return row.*member < n; });
  };
  const auto tracks = t.tracks_.size();
  return below_n(t.buckets_, &Bucket::longest) && below_n(t.collectives_, &Collective::event) &&
         below_n(t.kernels_, &KernelDetail::event) && below_n(t.ops_, &OpDetail::event) &&
         below_n(t.steps_, &Step::event) && below_n(t.flows_, &Flow::from) &&
         below_n(t.flows_, &Flow::to) &&
         std::ranges::all_of(t.steps_, [&](const Step& s) { return s.track < tracks; }) &&
         std::ranges::all_of(t.counters_, [&](const auto& c) { return c.track < tracks; }) &&
         std::ranges::all_of(t.memory_,
                             [&](const auto& m) { return m.track == kNone || m.track < tracks; }) &&
         std::ranges::all_of(t.gz_points_,
                             [&](const GzPoint& p) {
                               return p.bits < 8 && p.window_size <= 32768 &&
                                      p.window <= t.gz_windows_.size() &&
                                      p.window_size <= t.gz_windows_.size() - p.window;
                             }) &&
         std::ranges::all_of(
             t.category_, [](uint8_t c) { return c <= static_cast<uint8_t>(Category::kSpan); }) &&
         std::ranges::all_of(t.work_,
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
  const Spans spans{
      t.ts_,           t.dur_,       t.args_offset_, t.name_,     t.parent_,      t.correlation_,
      t.external_,     t.linked_,    t.detail_,      t.depth_,    t.category_,    t.work_,
      t.tracks_,       t.rows_,      t.levels_,      t.buckets_,  t.collectives_, t.kernels_,
      t.ops_,          t.memory_,    t.flows_,       t.counters_, t.steps_,       t.string_offsets_,
      t.string_bytes_, t.gz_points_, t.gz_windows_,  metadata,    warnings};
  size_t number = 0;
  bool good = true;
  for_each_section(spans, [&](auto& span) {
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

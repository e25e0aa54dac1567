#include "insight/trace_reader.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "insight/event_parser.h"
#include "insight/scan.h"
#include "insight/tolerant_json.h"
#include "insight/trace_builder.h"

namespace triptych::insight {
namespace {

constexpr size_t kWindow = 4 << 20;
constexpr size_t kMostValue = 256 << 20;  // of one event or one member of the header

/// A stretch of the text in memory, moved along the source.
class Window {
 public:
  /// @param bytes  about how much there is to come; small texts need no large window
  Window(ByteSource& source, uint64_t offset, uint64_t bytes, LoadProgress* progress)
      : source_(source), offset_(offset), progress_(progress) {
    buffer_.resize(std::clamp<uint64_t>(bytes + 1, 4096, kWindow) + kScanPadding);
    fill();
  }

  const char* p() const { return buffer_.data() + at_; }
  const char* end() const { return buffer_.data() + size_; }
  uint64_t offset() const { return offset_ + at_; }
  void set(const char* p) { at_ = std::min(static_cast<size_t>(p - buffer_.data()), size_); }

  /// Reads on, keeping what lies behind p(). False when there is no more, or when one value is too
  /// long to be true.
  bool more() {
    if (done_ || size_ - at_ > kMostValue) return false;
    const size_t keep = size_ - at_;
    std::memmove(buffer_.data(), buffer_.data() + at_, keep);
    offset_ += at_;
    at_ = 0;
    size_ = keep;
    if (keep * 2 > buffer_.size()) buffer_.resize(buffer_.size() * 2);
    return fill();
  }

  /// Skips blanks and reads on as needed; false at the end of the text.
  bool next_character() {
    for (;;) {
      set(skip_space(p()));
      if (p() < end()) return true;
      if (!more()) return false;
    }
  }

 private:
  bool fill() {
    if (progress_ && progress_->cancel.load(std::memory_order_relaxed)) throw Cancelled();
    const size_t room = buffer_.size() - kScanPadding;
    bool any = false;
    while (size_ < room) {
      const size_t got = source_.read(buffer_.data() + size_, room - size_);
      if (got == 0) {
        done_ = true;
        break;
      }
      any = true;
      size_ += got;
    }
    std::memset(buffer_.data() + size_, '"', kScanPadding);
    if (progress_) {
      const uint64_t now = source_.disk_bytes();
      if (now > reported_) progress_->bytes_done += now - reported_;
      reported_ = std::max(reported_, now);
    }
    return any;
  }

  ByteSource& source_;
  std::vector<char> buffer_;
  size_t at_ = 0, size_ = 0;
  uint64_t offset_, reported_ = 0;
  bool done_ = false;
  LoadProgress* progress_;
};

/// Reads events until the array ends, or an event starts at or behind `limit`.
struct EventRun {
  bool closed = false;     ///< the array's ']' was read
  bool truncated = false;  ///< the text ended first
  uint64_t damaged = 0;    ///< stretches that were skipped
};

/// Steps over a damaged stretch: to the next '{' that begins an event.
bool resynchronise(Window& window) {
  // A hostile text makes every look run to its end: after some such looks only places far apart are
  // tried.
  constexpr int kPatience = 64;
  constexpr std::ptrdiff_t kLook = 64 << 10;
  int unfinished = 0;
  window.set(window.p() + 1);
  for (;;) {
    const auto* brace = static_cast<const char*>(
        std::memchr(window.p(), '{', static_cast<size_t>(window.end() - window.p())));
    if (!brace) {
      window.set(window.end());
      if (!window.more()) return false;
      continue;
    }
    window.set(brace);
    const auto status = looks_like_event(window.p(), window.end());
    if (status == ParseStatus::kOk) return true;
    if (status == ParseStatus::kShort && window.end() - window.p() < kLook && window.more())
      continue;
    if (status == ParseStatus::kShort) ++unfinished;
    window.set(window.p() + (unfinished > kPatience ? kLook : 1));
  }
}

EventRun read_events(Window& window, uint64_t limit, EventSink& sink) {
  EventRun run;
  for (;;) {
    if (!window.next_character()) {
      run.truncated = true;
      return run;
    }
    const char* p = window.p();
    if (*p == ',') {
      window.set(p + 1);
      continue;
    }
    if (*p == ']') {
      window.set(p + 1);
      run.closed = true;
      return run;
    }
    if (window.offset() >= limit) return run;
    auto status = ParseStatus::kBad;
    if (*p == '{') {
      status = parse_event(p, window.end(), window.offset(), sink);
      if (status == ParseStatus::kOk) {
        window.set(p);
        continue;
      }
    }
    if (status == ParseStatus::kShort && window.more()) continue;
    // Either damaged, or the text ends inside an event. Look for another one behind it.
    if (!resynchronise(window)) {
      run.truncated = true;
      run.damaged += status == ParseStatus::kBad ? 1 : 0;
      return run;
    }
    ++run.damaged;
  }
}

/// One value of the header, or nothing where it is too long or cut short.
std::optional<Json> read_member(Window& window) {
  for (;;) {
    const char* behind = skip_value(window.p(), window.end());
    // A bare number at the very end of the window may go on behind it.
    if (behind < window.end() ||
        (behind <= window.end() && window.p() < window.end() &&
         (*window.p() == '"' || *window.p() == '{' || *window.p() == '['))) {
      Json value = parse_tolerant({window.p(), static_cast<size_t>(behind - window.p())});
      window.set(std::max(behind, window.p() + 1));
      return value;
    }
    if (!window.more()) {
      Json value = parse_tolerant({window.p(), static_cast<size_t>(window.end() - window.p())});
      window.set(window.end());
      return value;
    }
  }
}

class Reader {
 public:
  Reader(std::filesystem::path path, const ReadOptions& options)
      : path_(std::move(path)), options_(options), image_(std::make_unique<TraceImage>()) {
    image_->source = path_;
    sinks_.push_back(std::make_unique<EventSink>());
  }

  std::unique_ptr<TraceImage> read(ByteSource& source, uint64_t bytes, bool may_split) {
    Window window(source, 0, may_split ? bytes : std::max<uint64_t>(bytes, bytes * 16),
                  options_.progress);
    if (window.p() + 3 <= window.end() && std::memcmp(window.p(), "\xEF\xBB\xBF", 3) == 0)
      window.set(window.p() + 3);
    require<DataError>(window.next_character(), path_.string(), ": is empty");
    const char first = *window.p();
    require<DataError>(first == '{' || first == '[', path_.string(), ": begins with byte ",
                       static_cast<int>(static_cast<unsigned char>(first)),
                       "; a trace begins with '{' or '['");
    window.set(window.p() + 1);
    if (first == '[')
      events(window, bytes, may_split);
    else
      members(window, bytes, may_split);
    require<DataError>(found_events_, path_.string(), ": has no traceEvents; is it a trace?");
    if (const auto problem = drained_problem(source, window); !problem.empty()) {
      image_->warnings.push_back(problem);
      image_->facts.truncated = 1;
    }
    image_->gz_points = source.points();
    image_->gz_windows = source.windows();
    if (image_->facts.truncated)
      image_->warnings.push_back("the trace breaks off; all whole events before that are shown");
    if (damaged_ > 0)
      image_->warnings.push_back(std::to_string(damaged_) + " damaged stretches were skipped");
    base_time();
    return build_trace(std::move(sinks_), std::move(image_), options_.jobs,
                       options_.progress ? &options_.progress->cancel : nullptr);
  }

 private:
  std::string drained_problem(ByteSource& source, Window& window) {
    if (split_) return {};  // each part has read its own to the end
    do window.set(window.end());
    while (window.more());
    return source.problem();
  }

  void base_time() {
    const auto& m = image_->metadata;
    if (m.contains("baseTimeNanoseconds") && m["baseTimeNanoseconds"].is_number_integer())
      image_->facts.base_ns = m["baseTimeNanoseconds"].get<int64_t>();
    constexpr int64_t kLimit = int64_t{1} << 62;
    if (image_->facts.base_ns > kLimit || image_->facts.base_ns < 0) image_->facts.base_ns = 0;
  }

  void events(Window& window, uint64_t bytes, bool may_split) {
    found_events_ = true;
    if (may_split && options_.jobs > 1 && bytes > window.offset() + options_.split_bytes &&
        read_split(window, bytes))
      return;
    note(read_events(window, UINT64_MAX, *sinks_.front()));
  }

  void note(const EventRun& run) {
    if (run.truncated) image_->facts.truncated = 1;
    damaged_ += run.damaged;
  }

  /// The rest of the file in as many parts as there are jobs. A part begins at the first event
  /// behind its first byte; that guess was right when the part before arrives at exactly this
  /// place.
  bool read_split(Window& window, uint64_t bytes) {
    struct Part {
      std::unique_ptr<EventSink> sink = std::make_unique<EventSink>();
      std::unique_ptr<ByteSource> source;
      std::unique_ptr<Window> window;
      uint64_t begin = 0, limit = UINT64_MAX, end = 0;
      EventRun run;
      std::exception_ptr failure;
    };
    const uint64_t from = window.offset();
    std::vector<Part> parts(static_cast<size_t>(options_.jobs));
    const uint64_t step = (bytes - from) / parts.size();
    const auto work = [&](size_t i) {
      auto& part = parts[i];
      try {
        part.source = open_plain(path_, from + i * step);
        part.window =
            std::make_unique<Window>(*part.source, from + i * step, kWindow, options_.progress);
        if (i > 0 && !resynchronise(*part.window)) part.window->set(part.window->end());
        part.begin = part.window->offset();
        if (i + 1 < parts.size()) part.limit = from + (i + 1) * step + 1;
        part.run = read_events(*part.window, part.limit, *part.sink);
        part.end = part.window->offset();
      } catch (...) {
        part.failure = std::current_exception();
      }
    };
    {
      std::vector<std::jthread> threads;
      for (size_t i = 1; i < parts.size(); ++i) threads.emplace_back(work, i);
      work(0);
    }
    bool good = true;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].failure) std::rethrow_exception(parts[i].failure);
      if (i + 1 < parts.size())
        good = good && !parts[i].run.closed && !parts[i].run.truncated &&
               parts[i].end == parts[i + 1].begin;
    }
    if (!good) return false;  // an odd file: from front to back then
    sinks_.clear();
    for (auto& part : parts) {
      note(part.run);
      sinks_.push_back(std::move(part.sink));
    }
    split_ = true;
    Window& last = *parts.back().window;
    if (parts.back().run.closed) members_from(last);
    return true;
  }

  void members(Window& window, uint64_t bytes, bool may_split) {
    while (window.next_character()) {
      const char c = *window.p();
      if (c == '}') {
        window.set(window.p() + 1);
        return;
      }
      if (c != '"') {  // a comma; or garbage, which is stepped over
        window.set(window.p() + 1);
        continue;
      }
      auto key = read_member(window);
      if (!window.next_character()) break;
      if (*window.p() == ':') window.set(window.p() + 1);
      if (!window.next_character()) break;
      const std::string name = key && key->is_string() ? key->get<std::string>() : "";
      if (name == "traceEvents" && *window.p() == '[' && !found_events_) {
        window.set(window.p() + 1);
        events(window, bytes, may_split);
        if (split_) return;
        continue;
      }
      auto value = read_member(window);
      if (value && image_->metadata.size() < kMostMembers)
        image_->metadata[name] = std::move(*value);
    }
    image_->facts.truncated = 1;
  }
  void members_from(Window& window) { members(window, 0, false); }

  static constexpr size_t kMostMembers = 1000;

  std::filesystem::path path_;
  ReadOptions options_;
  std::unique_ptr<TraceImage> image_;
  std::vector<std::unique_ptr<EventSink>> sinks_;
  bool found_events_ = false;
  bool split_ = false;
  uint64_t damaged_ = 0;
};

}  // namespace

Trace read_trace(const std::filesystem::path& path, const ReadOptions& options) {
  const auto identity = identify(path);
  const auto beside = TraceImage::index_beside(path), cached = TraceImage::index_in_cache(path);
  if (options.use_index) {
    for (const auto& index : {beside, cached}) {
      if (index.empty()) continue;
      try {
        if (auto trace = TraceImage::open(index, path, identity)) {
          if (options.progress) options.progress->bytes_done += identity.bytes;
          return *std::move(trace);
        }
      } catch (const Error& error) {
        log_debug("{}", error.what());  // an unreadable index is as good as none
      }
    }
  }
  const auto source = open_source(path);
  auto trace =
      TraceImage::finish(Reader(path, options).read(*source, identity.bytes, !is_gzip(path)));
  if (options.write_index) {
    try {
      TraceImage::write(trace, beside, identity);
    } catch (const Error&) {
      try {
        if (!cached.empty()) {
          std::filesystem::create_directories(cached.parent_path());
          TraceImage::write(trace, cached, identity);
        }
      } catch (const std::exception& error) {
        log_debug("{}", error.what());  // works without; the next opening only takes longer
      }
    }
  }
  return trace;
}

Trace read_trace_text(std::string_view text, std::string_view origin) {
  const auto source = text_source(text);
  ReadOptions options;
  auto image = Reader(std::filesystem::path(origin), options).read(*source, text.size(), false);
  auto trace = TraceImage::finish(std::move(image));
  TraceImage::keep_text(trace, text);
  return trace;
}

}  // namespace triptych::insight

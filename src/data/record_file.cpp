#include "data/record_file.h"

#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace triptych {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr uint64_t kLongestRecord = uint64_t{1} << 30;
constexpr int64_t kMostLines = std::numeric_limits<uint32_t>::max();

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// A character as a message may show it: a hostile file should not reach the terminal raw.
std::string shown(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x21 && byte < 0x7F ? fmt::format("'{}'", c) : fmt::format("byte 0x{:02x}", byte);
}

/// Known files of another kind, so that the message can name them.
std::string_view foreign_kind(std::string_view text) {
  if (text.starts_with("\x1F\x8B")) return "gzip data; unpack it first";
  if (text.starts_with("PK\x03\x04")) return "a zip archive; unpack it first";
  if (text.starts_with("PAR1")) return "a Parquet file; export it as JSONL first";
  if (text.starts_with("\x28\xB5\x2F\xFD")) return "zstd data; unpack it first";
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    return "UTF-16 text; save it as UTF-8 first";
  }
  return {};
}

class Indexer {
 public:
  Indexer(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  RecordIndex run() {
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
    if (const auto kind = foreign_kind(text_); !kind.empty()) {
      index_.problem = fmt::format("{}: found {}; expected JSON or JSONL records", name_, kind);
      return std::move(index_);
    }
    const auto start = at_;
    const auto first_line = line_;
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[') {
      index_.layout = RecordLayout::kArray;
      index_array();
    } else {
      at_ = start;
      line_ = first_line;
      index_lines();
    }
    return std::move(index_);
  }

 private:
  void skip_space() {
    for (; at_ < text_.size() && is_space(text_[at_]); ++at_) line_ += text_[at_] == '\n';
  }

  template <class... Parts>
  void stop(fmt::format_string<Parts...> format, Parts&&... parts) {
    index_.problem =
        fmt::format("{}:{}: {}", name_, line_, fmt::format(format, std::forward<Parts>(parts)...));
  }

  bool add(uint64_t begin, uint64_t end, int64_t line) {
    if (end - begin > kLongestRecord || line > kMostLines) {
      line_ = line;
      stop("record of {} bytes; at most {} bytes and {} lines are allowed", end - begin,
           kLongestRecord, kMostLines);
      return false;
    }
    index_.spans.push_back(
        {begin, static_cast<uint32_t>(end - begin), static_cast<uint32_t>(line)});
    return true;
  }

  void index_lines() {
    for (; at_ < text_.size(); ++line_) {
      const auto* newline =
          static_cast<const char*>(std::memchr(text_.data() + at_, '\n', text_.size() - at_));
      const auto end = newline ? static_cast<size_t>(newline - text_.data()) : text_.size();
      const auto record = trimmed(text_.substr(at_, end - at_));
      if (!record.empty()) {
        const auto begin = static_cast<uint64_t>(record.data() - text_.data());
        if (!add(begin, begin + record.size(), line_)) return;
      }
      at_ = end + 1;
    }
  }

  void index_array() {
    ++at_;  // '['
    skip_space();
    if (at_ < text_.size() && text_[at_] == ']') {
      ++at_;
    } else {
      for (bool more = true; more;) {
        skip_space();
        if (!element() || !separator(more)) return;
      }
    }
    skip_space();
    if (at_ < text_.size()) stop("found {} after the end of the array", shown(text_[at_]));
  }

  /// Moves behind one element: a bracketed value, a string, or a bare word up to the next ',' or
  /// ']'.
  bool element() {
    const auto begin = at_;
    const auto line = line_;
    int64_t depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        if (!string()) {
          stop("the file ends inside a string of record {} (line {}); is it cut off?",
               next_record(), line);
          return false;
        }
        continue;
      }
      if (depth == 0 && (c == ',' || c == ']')) break;
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') {
        if (--depth < 0) {
          stop("found {} outside of any record", shown(c));
          return false;
        }
      }
      line_ += c == '\n';
      ++at_;
    }
    if (depth > 0) {
      stop("the file ends inside record {} (line {}); is it cut off?", next_record(), line);
      return false;
    }
    const auto record = trimmed(text_.substr(begin, at_ - begin));
    if (record.empty()) {
      if (at_ >= text_.size()) {
        stop("the array has no end; expected ']' after {} records", index_.spans.size());
      } else {
        stop("found {} where record {} should begin", shown(text_[at_]), next_record());
      }
      return false;
    }
    return add(begin, begin + record.size(), line);
  }

  size_t next_record() const { return index_.spans.size() + 1; }

  bool string() {
    for (++at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\\') {
        ++at_;
      } else if (c == '"') {
        ++at_;
        return true;
      } else {
        line_ += c == '\n';
      }
    }
    at_ = text_.size();  // a backslash as the last byte has moved beyond it
    return false;
  }

  bool separator(bool& more) {
    if (at_ >= text_.size()) {
      stop("the array has no end; expected ',' or ']' after record {}", index_.spans.size());
      return false;
    }
    more = text_[at_] == ',';
    ++at_;
    return true;
  }

  std::string_view text_, name_;
  size_t at_ = 0;
  int64_t line_ = 1;
  RecordIndex index_;
};

}  // namespace

RecordIndex index_records(std::string_view text, std::string_view name) {
  return Indexer(text, name).run();
}

std::string record_origin(std::string_view name, RecordLayout layout, int64_t i, int64_t line) {
  return layout == RecordLayout::kLines ? fmt::format("{}:{}", name, line)
                                        : fmt::format("{}:{}: record {}", name, line, i + 1);
}

RecordFile::RecordFile(const std::filesystem::path& path, std::string shown_as)
    : name_(shown_as.empty() ? path.string() : std::move(shown_as)), file_(path) {
  index_ = index_records(file_.text(), name_);
  require<DataError>(index_.problem.empty(), index_.problem);
  require<DataError>(size() > 0, name_, ": found no record; expected JSONL or a JSON array");
  index_.spans.shrink_to_fit();
}

std::string_view RecordFile::text(int64_t i) const {
  const auto& span = index_.spans[static_cast<size_t>(i)];
  return file_.text().substr(span.begin, span.length);
}

std::string RecordFile::origin(int64_t i) const {
  return record_origin(name_, index_.layout, i, line(i));
}

}  // namespace triptych

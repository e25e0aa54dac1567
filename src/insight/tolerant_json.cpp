#include "insight/tolerant_json.h"

#include <string>

#include "insight/scan.h"

namespace triptych::insight {
namespace {

/// Finding a key walks the object; wider ones are hostile, and the rest of them is left out.
constexpr size_t kMostMembers = 4096;

class Parser {
 public:
  Parser(const char* begin, const char* end, int depth) : p_(begin), end_(end), depth_(depth) {}

  Json value(int level) {
    space();
    if (p_ >= end_) return nullptr;
    if (*p_ == '"') return string();
    if (*p_ == '{' || *p_ == '[') {
      if (level < depth_) return *p_ == '{' ? object(level) : array(level);
      p_ = skip_value(p_, end_);
      return nullptr;
    }
    return scalar();
  }

 private:
  void space() { p_ = skip_space(p_); }

  std::string string() {
    RawValue raw;
    p_ = read_value(p_, end_, raw);
    if (p_ > end_ + 1) p_ = end_;
    if (raw.begin > end_) return "";
    std::string_view text(raw.begin,
                          std::min<size_t>(raw.size, static_cast<size_t>(end_ - raw.begin)));
    return valid_utf8(raw.escaped ? unescape(text) : std::string(text));
  }

  Json scalar() {
    RawValue raw;
    const char* before = p_;
    p_ = read_value(p_, end_, raw);
    if (p_ == before) ++p_;  // a stray character: step over it, or nothing would end
    const auto text = raw.text();
    if (text == "true") return true;
    if (text == "false") return false;
    if (text == "null" || text.empty()) return nullptr;
    if (text.find_first_of(".eE") == std::string_view::npos) {
      if (const auto whole = to_integer(raw)) return *whole;
    }
    if (const auto number = to_number(raw)) return *number;
    return valid_utf8(text);
  }

  Json object(int level) {
    Json out = Json::object();
    ++p_;
    while (p_ < end_) {
      space();
      if (p_ >= end_) break;
      if (*p_ == '}') {
        ++p_;
        break;
      }
      if (*p_ != '"') {
        ++p_;
        continue;
      }
      auto key = string();
      space();
      if (p_ < end_ && *p_ == ':') ++p_;
      auto member = value(level + 1);
      if (out.size() < kMostMembers) out[std::move(key)] = std::move(member);
    }
    return out;
  }

  Json array(int level) {
    Json out = Json::array();
    ++p_;
    while (p_ < end_) {
      space();
      if (p_ >= end_) break;
      if (*p_ == ']') {
        ++p_;
        break;
      }
      if (*p_ == ',' || *p_ == '}' || *p_ == ':') {
        ++p_;
        continue;
      }
      out.push_back(value(level + 1));
    }
    return out;
  }

  const char* p_;
  const char* end_;
  int depth_;
};

/// Bytes of the well-formed UTF-8 character at `at`; 0 when there is none.
size_t character_bytes(std::string_view s, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[at + i]); };
  const auto follows = [&](size_t i) { return at + i < s.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char c = byte(0);
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c < 0xE0) return follows(1) ? 2 : 0;
  if (c >= 0xE0 && c < 0xF0) {
    if (!follows(1) || !follows(2)) return 0;
    if ((c == 0xE0 && byte(1) < 0xA0) || (c == 0xED && byte(1) >= 0xA0)) return 0;
    return 3;
  }
  if (c >= 0xF0 && c < 0xF5) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if ((c == 0xF0 && byte(1) < 0x90) || (c == 0xF4 && byte(1) >= 0x90)) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

std::string valid_utf8(std::string_view text) {
  std::string out;
  size_t good = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = character_bytes(text, i);
    if (bytes == 0) {
      out.append(text, good, i - good);
      out += "\xEF\xBF\xBD";
      good = ++i;
    } else {
      i += bytes;
    }
  }
  out.append(text, good);
  return out;
}

size_t whole_value_size(std::string_view text) {
  std::string padded(text);
  padded.append(kScanPadding, '"');
  const char* end = padded.data() + text.size();
  const char* begin = skip_space(padded.data());
  if (begin >= end) return 0;
  const char* behind = skip_value(begin, end);
  return behind <= end ? static_cast<size_t>(behind - padded.data()) : 0;
}

Json parse_tolerant(std::string_view text, int depth) {
  std::string padded(text);
  padded.append(kScanPadding, '"');
  return Parser(padded.data(), padded.data() + text.size(), depth).value(0);
}

}  // namespace triptych::insight

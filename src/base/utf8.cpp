#include "base/utf8.h"

#include <cstdint>
#include <cstring>

#include "base/format.h"

namespace triptych {
namespace {

/// What stands at the start of `text`: a whole code point, the start of one that the text's end
/// cuts off, or `size` bytes that belong to none (the maximal subpart).
struct Step {
  enum Kind { kWhole, kCutOff, kBad } kind;
  size_t size;
};

Step step(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Step::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Step::kBad, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Step::kCutOff, i};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return {Step::kBad, i};
  }
  return {Step::kWhole, length};
}

}  // namespace

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

size_t first_bad_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    while (text.size() - at >= sizeof(word)) {  // eight ASCII characters at a time
      std::memcpy(&word, text.data() + at, sizeof(word));
      if (word & 0x8080808080808080u) break;
      at += sizeof(word);
    }
    if (at == text.size()) break;
    const Step s = step(text.substr(at));
    if (s.kind != Step::kWhole) return at;
    at += s.size;
  }
  return at;
}

size_t incomplete_utf8_tail(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte >= 0xC0) {
      return step(text.substr(text.size() - back)).kind == Step::kCutOff ? back : 0;
    }
  }
  return 0;
}

std::string repair_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = bytes.substr(at);
    const size_t good = first_bad_utf8(rest);
    out += rest.substr(0, good);
    if (good == rest.size()) break;
    append_utf8(out, 0xFFFD);
    at += good + step(rest.substr(good)).size;
  }
  return out;
}

std::string escape_bad_utf8(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const std::string_view rest = bytes.substr(at);
    const size_t good = first_bad_utf8(rest);
    out += rest.substr(0, good);
    if (good == rest.size()) break;
    out += fmt::format("\\x{:02x}", static_cast<unsigned char>(rest[good]));
    at += good + 1;
  }
  return out;
}

std::string escape_controls(std::string_view text, bool lines) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool stays = !lines && (byte == '\n' || byte == '\t');
    if ((byte < 0x20 && !stays) || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // U+0080 to U+009F
      out += fmt::format("\\u{:04x}", next);
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace triptych

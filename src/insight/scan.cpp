#include "insight/scan.h"

#include <charconv>
#include <limits>

namespace triptych::insight {
namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Sign and digits at `p`; saturates.
const char* read_digits(const char* p, const char* end, int64_t& value, bool& negative) {
  negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) ++p;
  value = 0;
  for (; p < end && is_digit(*p); ++p) {
    const int digit = *p - '0';
    value = value > (kMost - digit) / 10 ? kMost : value * 10 + digit;
  }
  return p;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 63));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
}

/// Four hexadecimal digits at text[at], or nothing.
std::optional<uint32_t> hex4(std::string_view text, size_t at) {
  if (at + 4 > text.size()) return std::nullopt;
  uint32_t value = 0;
  const auto [behind, error] = std::from_chars(&text[at], &text[at] + 4, value, 16);
  if (error != std::errc() || behind != &text[at] + 4) return std::nullopt;
  return value;
}

}  // namespace

const char* skip_value(const char* p, const char* end) {
  if (*p == '"') {
    bool escaped = false;
    return string_end(p + 1, end, escaped) + 1;
  }
  if (*p != '{' && *p != '[') {
    while (p < end && *p != ',' && *p != '}' && *p != ']' && *p != '"' && *p != '\n' && *p != ' ' &&
           *p != '\t' && *p != '\r')
      ++p;
    return p;
  }
  for (int64_t depth = 0; p < end;) {
    const char c = *p++;
    if (c == '"') {
      bool escaped = false;
      p = string_end(p, end, escaped) + 1;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return p;
    }
  }
  return end + 1;  // ran short
}

std::optional<int64_t> to_integer(const RawValue& value) {
  const char *p = value.begin, *end = p + value.size;
  bool negative = false;
  int64_t whole = 0;
  const char* behind = read_digits(p, end, whole, negative);
  if (behind == p || !is_digit(behind[-1])) return std::nullopt;
  if (behind < end && (*behind == 'e' || *behind == 'E' || *behind == '.')) {
    const auto number = to_number(value);
    if (!number) return std::nullopt;
    if (*number >= 9.2e18) return kMost;
    if (*number <= -9.2e18) return -kMost;
    return static_cast<int64_t>(*number);
  }
  if (behind < end && value.is_string) return std::nullopt;  // "7 blocks" is a name
  return negative ? -whole : whole;
}

std::optional<double> to_number(const RawValue& value) {
  double number = 0;
  const auto [behind, error] = std::from_chars(value.begin, value.begin + value.size, number);
  if (error != std::errc() || behind != value.begin + value.size) return std::nullopt;
  if (!(number == number) || number - number != 0) return std::nullopt;
  return number;
}

std::optional<int64_t> micros_to_ns(const RawValue& value) {
  const char *p = value.begin, *end = p + value.size;
  bool negative = false;
  int64_t whole = 0;
  const char* behind = read_digits(p, end, whole, negative);
  if (behind == p || !is_digit(behind[-1])) return std::nullopt;
  // A quarter of the range keeps start + duration, and differences, inside int64.
  constexpr int64_t kLimit = kMost / 4000;
  if (whole > kLimit) return std::nullopt;
  int64_t ns = whole * 1000;
  if (behind < end && *behind == '.') {
    int64_t scale = 100;
    for (++behind; behind < end && is_digit(*behind); ++behind) {
      ns += scale > 0 ? (*behind - '0') * scale : 0;
      if (scale == 0 && *behind >= '5') ns += 1;
      scale = scale > 0 ? scale / 10 : -1;
    }
  }
  if (behind < end && (*behind == 'e' || *behind == 'E')) {
    const auto number = to_number({value.begin, value.size});
    if (!number || *number > static_cast<double>(kLimit) || *number < -static_cast<double>(kLimit))
      return std::nullopt;
    return static_cast<int64_t>(*number * 1000);
  }
  if (behind < end && value.is_string && *behind != ' ' && *behind != '\t') return std::nullopt;
  return negative ? -ns : ns;
}

std::string unescape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    switch (c) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case '"':
      case '\\':
      case '/':
        out += c;
        break;
      case 'u': {
        auto unit = hex4(text, i + 1);
        if (!unit) {
          out += "\\u";
          break;
        }
        i += 4;
        if (*unit >= 0xD800 && *unit < 0xDC00 && i + 2 < text.size() && text[i + 1] == '\\' &&
            text[i + 2] == 'u') {
          const auto low = hex4(text, i + 3);
          if (low && *low >= 0xDC00 && *low < 0xE000) {
            unit = 0x10000 + ((*unit - 0xD800) << 10) + (*low - 0xDC00);
            i += 6;
          }
        }
        append_utf8(out, *unit >= 0xD800 && *unit < 0xE000 ? 0xFFFD : *unit);
        break;
      }
      default:
        out += '\\';
        out += c;
    }
  }
  return out;
}

}  // namespace triptych::insight

#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace triptych::insight {

// Low-level reading of JSON text that nobody vouches for. The text lies in a buffer that goes on
// for kScanPadding bytes of '"' behind its end: every search for the end of a string stops there,
// so the loops need no bounds check per byte; whoever finds itself behind the end has run short of
// text.
constexpr size_t kScanPadding = 64;

/// One scalar or nested value as it stands in the text; strings without their quotes. Without
/// initializers, so that tables of them cost nothing per event.
struct RawValue {
  const char* begin;
  uint32_t size;
  bool is_string;
  bool escaped;
  std::string_view text() const { return {begin, size}; }
};

/// The first '"' or '\\' at or behind p.
inline const char* find_quote_or_escape(const char* p) {
#if defined(__SSE2__)
  const __m128i quote = _mm_set1_epi8('"'), escape = _mm_set1_epi8('\\');
  for (;; p += 16) {
    const __m128i block = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const int hit = _mm_movemask_epi8(
        _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, escape)));
    if (hit != 0) return p + __builtin_ctz(static_cast<unsigned>(hit));
  }
#else
  while (*p != '"' && *p != '\\') ++p;
  return p;
#endif
}

inline const char* skip_space(const char* p) {
  while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') ++p;
  return p;
}

/// p behind the opening quote; returns the closing quote. Control characters pass.
inline const char* string_end(const char* p, const char* end, bool& escaped) {
  for (p = find_quote_or_escape(p); *p == '\\' && p < end; p = find_quote_or_escape(p)) {
    escaped = true;
    p += 2;
  }
  return p;
}

/// Steps over any value, however deeply nested, in constant memory; returns the place behind it.
const char* skip_value(const char* p, const char* end);

/// Reads the value at p (no space before it) and steps over it.
inline const char* read_value(const char* p, const char* end, RawValue& value) {
  if (*p == '"') {
    value.escaped = false;
    value.is_string = true;
    value.begin = p + 1;
    const char* close = string_end(p + 1, end, value.escaped);
    value.size = static_cast<uint32_t>(close - value.begin);
    return close + 1;
  }
  value.is_string = value.escaped = false;
  value.begin = p;
  const char* behind = skip_value(p, end);
  value.size = static_cast<uint32_t>(behind - p);
  return behind;
}

/// A whole number written as a number or as a string of one; fractions are cut off, what exceeds
/// the range saturates. Nothing for anything else (NaN, true, objects).
std::optional<int64_t> to_integer(const RawValue& value);
std::optional<double> to_number(const RawValue& value);

/// Microseconds in decimal, as a number or a string, to whole ns without passing through a double
/// (absolute times with ns digits do not fit one). Rounds what is below a ns to nearest.
std::optional<int64_t> micros_to_ns(const RawValue& value);

/// Resolves JSON escapes; wrong ones stay as they are. Surrogate pairs become one character.
std::string unescape(std::string_view text);

}  // namespace triptych::insight

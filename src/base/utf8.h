#pragma once

// UTF-8: checking it, reading it, and repairing it as the reference's decoder does.

#include <cstddef>
#include <string>
#include <string_view>

namespace triptych {

/// One code point of well-formed UTF-8 and how many bytes it takes.
struct CodePoint {
  char32_t value;
  size_t size;
};

/// Reads a code point. The text from `p` on must be well-formed; nothing is checked.
inline CodePoint read_code_point(const char* p) {
  const auto byte = [p](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(p[i]));
  };
  if (byte(0) < 0x80) return {byte(0), 1};
  if (byte(0) < 0xE0) return {(byte(0) & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (byte(0) < 0xF0) {
    return {(byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  }
  return {
      (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
      4};
}

/// Appends a code point (below 0x110000, no surrogate) as UTF-8.
void append_utf8(std::string& out, char32_t code_point);

/// Offset of the first byte that does not belong to well-formed UTF-8; text.size() when all is
/// well.
size_t first_bad_utf8(std::string_view text);

/// Bytes at the end of `text` that are a proper prefix of a well-formed code point: 0 to 3.
size_t incomplete_utf8_tail(std::string_view text);

/// Replaces each maximal ill-formed subpart by U+FFFD (Unicode standard, section 3.9, practice of
/// substitution; the same as Rust's and Python's).
std::string repair_utf8(std::string_view bytes);

/// For messages: each byte that belongs to no well-formed UTF-8 as "\xff", the rest as it is.
std::string escape_bad_utf8(std::string_view bytes);

/// Well-formed UTF-8 as it may be shown on a terminal: control characters, which could move the
/// cursor or colour what follows, as "\x1b" or "\u009b".
/// @param lines  tabs and ends of lines as well, which stay otherwise
std::string escape_controls(std::string_view text, bool lines = false);

}  // namespace triptych

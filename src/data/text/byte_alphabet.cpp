#include "data/text/byte_alphabet.h"

#include <algorithm>
#include <numeric>

#include "base/utf8.h"

namespace triptych {
namespace {

constexpr int kExtra = 68;
constexpr int kStandIns = 256 + kExtra;

/// Stand-in to byte, -1 where none; stand-ins are below U+0144.
const std::array<int16_t, kStandIns>& byte_of_stand_in() {
  static const auto table = [] {
    std::array<int16_t, kStandIns> bytes{};
    bytes.fill(-1);
    for (int b = 0; b < 256; ++b) bytes[byte_alphabet()[b]] = static_cast<int16_t>(b);
    return bytes;
  }();
  return table;
}

}  // namespace

const std::array<char32_t, 256>& byte_alphabet() {
  static const auto table = [] {
    std::array<char32_t, 256> stand_ins{};
    char32_t extra = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable =
          (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
      stand_ins[b] = printable ? b : extra++;
    }
    return stand_ins;
  }();
  return table;
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(out, byte_alphabet()[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  if (first_bad_utf8(text) != text.size()) return std::nullopt;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = read_code_point(text.data() + at);
    if (c.value >= kStandIns || byte_of_stand_in()[c.value] < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte_of_stand_in()[c.value]));
    at += c.size;
  }
  return out;
}

const std::array<uint8_t, 256>& bytes_in_alphabet_order() {
  static const auto order = [] {
    std::array<uint8_t, 256> bytes{};
    std::iota(bytes.begin(), bytes.end(), 0);
    std::sort(bytes.begin(), bytes.end(),
              [](uint8_t a, uint8_t b) { return byte_alphabet()[a] < byte_alphabet()[b]; });
    return bytes;
  }();
  return order;
}

}  // namespace triptych

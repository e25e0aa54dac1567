#include "data/base64.h"

#include <array>
#include <cstdint>

#include "base/error.h"

namespace triptych {
namespace {

constexpr uint8_t kWrong = 0xFF, kSpace = 0xFE;

constexpr std::array<uint8_t, 256> kValues = [] {
  std::array<uint8_t, 256> values{};
  values.fill(kWrong);
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kAlphabet.size(); ++i) {
    values[static_cast<unsigned char>(kAlphabet[i])] = static_cast<uint8_t>(i);
  }
  for (const char c : {' ', '\t', '\r', '\n'}) values[static_cast<unsigned char>(c)] = kSpace;
  return values;
}();

}  // namespace

std::vector<std::byte> decode_base64(std::string_view text, std::string_view origin) {
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int have = 0;  // bits not yet written
  size_t digits = 0, padding = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto value = kValues[static_cast<unsigned char>(text[i])];
    if (value == kSpace) continue;
    if (text[i] == '=') {
      ++padding;
      continue;
    }
    require<DataError>(value != kWrong && padding == 0, origin, ": wrong base64 at offset ", i);
    ++digits;
    bits = bits << 6 | value;
    have += 6;
    if (have >= 8) {
      have -= 8;
      bytes.push_back(static_cast<std::byte>(bits >> have & 0xFF));
    }
  }
  require<DataError>(digits % 4 != 1 && padding <= 2, origin, ": base64 of ", digits,
                     " characters is cut off");
  return bytes;
}

}  // namespace triptych

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace triptych {

/// The printable stand-ins that vocabulary files use for bytes: 33-126, 161-172 and 174-255 stand
/// for themselves, the other 68 for U+0100, U+0101, ... in ascending order. Source: GPT-2.
const std::array<char32_t, 256>& byte_alphabet();

/// Bytes written in stand-ins, as UTF-8.
std::string to_byte_alphabet(std::string_view bytes);

/// The way back; nothing when a character is no stand-in or the UTF-8 is malformed.
std::optional<std::string> from_byte_alphabet(std::string_view text);

/// All bytes in the order of their stand-ins: the first 256 ids of a byte-level vocabulary.
const std::array<uint8_t, 256>& bytes_in_alphabet_order();

}  // namespace triptych

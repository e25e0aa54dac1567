#pragma once

#include <cstdint>

namespace triptych {

/// What the published patterns ask of a character: \p{L}, \p{N}, \s, or none of them.
enum class CharClass : uint8_t { kOther, kLetter, kNumber, kSpace };

/// Class of every code point below 0x110000, Unicode 16.0 as in the reference's regex engine.
const CharClass* char_classes();

}  // namespace triptych

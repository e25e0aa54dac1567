#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace triptych {

/// Bytes of base64 text (RFC 4648, '+' and '/'); white space is passed over, padding may be
/// missing.
/// @throws DataError "origin: ..." with the offset of the first wrong character.
std::vector<std::byte> decode_base64(std::string_view text, std::string_view origin);

}  // namespace triptych

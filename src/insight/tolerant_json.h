#pragma once

#include <string_view>

#include "base/json.h"

namespace triptych::insight {

/// Makes something of any text: NaN and Infinity become strings, trailing commas, raw control
/// characters and duplicate keys (the last wins) pass, invalid UTF-8 becomes U+FFFD; what is nested
/// deeper than `depth` becomes null; text that breaks off is closed. Never throws on wrong text.
Json parse_tolerant(std::string_view text, int depth = 64);

/// Bytes of the first value in the text; 0 when it breaks off before its end.
size_t whole_value_size(std::string_view text);

/// Valid UTF-8, invalid bytes replaced by U+FFFD.
std::string valid_utf8(std::string_view text);

}  // namespace triptych::insight

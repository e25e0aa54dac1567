#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace triptych::insight {

/// One gzip member without name or time: the same text gives the same bytes. `level` 1 to 9.
std::string gzip(std::string_view text, int level);

/// The text of one gzip member. @throws DataError when it is damaged, cut short, or longer than
/// `limit` bytes.
std::string gunzip(std::string_view packed, size_t limit);

}  // namespace triptych::insight

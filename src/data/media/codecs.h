#pragma once

// One pair of functions per file format; image.cpp chooses. Private to this folder.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "base/files.h"
#include "data/media/image.h"

namespace triptych::codecs {

using Bytes = std::span<const std::byte>;

/// A file of the user's data: when it cannot be opened the sample is bad, so the error is a
/// DataError.
MappedFile map_picture(const std::filesystem::path& path);

/// Header only. @throws DataError.
ImageSize probe_jpeg(Bytes bytes, std::string_view origin);
ImageSize probe_png(Bytes bytes, std::string_view origin);
ImageSize probe_webp(Bytes bytes, std::string_view origin);

/// The caller has checked the size of the header against its limits.
Picture decode_jpeg(Bytes bytes, std::string_view origin);
Picture decode_png(Bytes bytes, std::string_view origin);
Picture decode_webp(Bytes bytes, std::string_view origin);

}  // namespace triptych::codecs

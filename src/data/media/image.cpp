#include "data/media/image.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "data/media/codecs.h"

namespace triptych {
namespace {

using codecs::Bytes;

bool starts_with(Bytes bytes, std::string_view magic, size_t at = 0) {
  return bytes.size() >= at + magic.size() &&
         std::memcmp(bytes.data() + at, magic.data(), magic.size()) == 0;
}

/// What an unsupported file probably is, so that the user knows what to convert.
std::string_view guess_other(Bytes bytes) {
  if (starts_with(bytes, "GIF8")) return "a GIF";
  if (starts_with(bytes, "BM")) return "a BMP";
  if (starts_with(bytes, "II*") || starts_with(bytes, "MM")) return "a TIFF";
  if (starts_with(bytes, "ftyp", 4)) return "an AVIF, HEIC or video";
  if (starts_with(bytes, "<")) return "an HTML, XML or SVG";
  return "an unknown";
}

ImageFormat format_of(Bytes bytes, std::string_view origin) {
  if (starts_with(bytes, "\xff\xd8\xff")) return ImageFormat::kJpeg;
  if (starts_with(bytes, "\x89PNG\r\n\x1a\n")) return ImageFormat::kPng;
  if (starts_with(bytes, "RIFF") && starts_with(bytes, "WEBP", 8)) return ImageFormat::kWebp;
  require<DataError>(!bytes.empty(), origin, ": the picture is empty (0 bytes)");
  std::string first;
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 8); ++i) {
    first += fmt::format("{}{:02x}", i ? " " : "", std::to_integer<unsigned>(bytes[i]));
  }
  fail<DataError>(origin, ": ", guess_other(bytes), " file (it starts with ", first,
                  "); pictures must be JPEG, PNG or WebP");
}

ImageInfo checked(ImageFormat format, ImageSize size, std::string_view origin,
                  const ImageLimits& limits) {
  require<DataError>(size.width > 0 && size.height > 0, origin, ": the picture is ", size.width,
                     " x ", size.height, " pixels; both sides must be at least 1");
  require<DataError>(size.height <= limits.max_pixels / size.width, origin, ": the picture is ",
                     size.width, " x ", size.height, " pixels, the limit is ", limits.max_pixels,
                     " in all");
  return {format, size};
}

}  // namespace

MappedFile codecs::map_picture(const std::filesystem::path& path) {
  try {
    return MappedFile(path);
  } catch (const Error& error) {
    throw DataError(error.what());
  }
}

std::string_view to_string(ImageFormat format) {
  switch (format) {
    case ImageFormat::kJpeg:
      return "JPEG";
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kWebp:
      return "WebP";
  }
  return "unknown";
}

ImageInfo probe_image(Bytes bytes, std::string_view origin, const ImageLimits& limits) {
  const auto format = format_of(bytes, origin);
  switch (format) {
    case ImageFormat::kJpeg:
      return checked(format, codecs::probe_jpeg(bytes, origin), origin, limits);
    case ImageFormat::kPng:
      return checked(format, codecs::probe_png(bytes, origin), origin, limits);
    case ImageFormat::kWebp:
      break;
  }
  return checked(format, codecs::probe_webp(bytes, origin), origin, limits);
}

ImageInfo probe_image(const std::filesystem::path& path, const ImageLimits& limits) {
  return probe_image(codecs::map_picture(path).bytes(), path.string(), limits);
}

Picture decode_picture(Bytes bytes, std::string_view origin, const ImageLimits& limits) {
  switch (probe_image(bytes, origin, limits).format) {
    case ImageFormat::kJpeg:
      return codecs::decode_jpeg(bytes, origin);
    case ImageFormat::kPng:
      return codecs::decode_png(bytes, origin);
    case ImageFormat::kWebp:
      break;
  }
  return codecs::decode_webp(bytes, origin);
}

RgbImage decode_image(Bytes bytes, std::string_view origin, AlphaRule alpha,
                      const ImageLimits& limits) {
  return to_rgb(decode_picture(bytes, origin, limits), alpha);
}

RgbImage decode_image(const std::filesystem::path& path, AlphaRule alpha,
                      const ImageLimits& limits) {
  return decode_image(codecs::map_picture(path).bytes(), path.string(), alpha, limits);
}

}  // namespace triptych

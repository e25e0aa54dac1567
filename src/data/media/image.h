#pragma once

// Pictures from bytes: JPEG, PNG and WebP, with the pixel values that Pillow's `convert("RGB")`
// gives. No libtorch. Everything here may be called from any thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

enum class ImageFormat { kJpeg, kPng, kWebp };
std::string_view to_string(ImageFormat format);

struct ImageSize {
  int64_t width = 0, height = 0;
  int64_t pixels() const { return width * height; }
  bool operator==(const ImageSize&) const = default;
};

/// Bounds on what a file may ask for, so that a small file cannot fill memory.
struct ImageLimits {
  int64_t max_pixels = 178'956'970;  ///< where Pillow stops as well
};

/// What becomes of transparency: dropped (the colour under it shows), or composited on white.
enum class AlphaRule { kDrop, kWhite };

struct ImageInfo {
  ImageFormat format = ImageFormat::kJpeg;
  ImageSize size;
};

/// 8-bit colour, [height, width, 3], rows without padding.
struct RgbImage {
  ImageSize size;
  std::vector<uint8_t> pixels;
  std::string warning;  ///< what the decoder complained about without giving up; usually empty
};

/// Format and size from the header alone; no pixel is decoded.
/// @param origin  what messages call the picture, usually its path
/// @throws DataError "origin: ..." for other formats, broken headers, sizes of 0 and beyond
/// `limits`.
ImageInfo probe_image(std::span<const std::byte> bytes, std::string_view origin,
                      const ImageLimits& limits = {});
/// The same for a file; only the pages that hold the header are read. A file that cannot be opened
/// is a DataError too.
ImageInfo probe_image(const std::filesystem::path& path, const ImageLimits& limits = {});

/// Decodes one picture (the first, where the file holds several).
///
/// Pixel values are those of Pillow 12 `Image.open(f).convert("RGB")`: palettes looked up, grey
/// repeated, 16-bit colour cut to its high byte and 16-bit grey clamped at 255 (Pillow does just
/// that), CMYK and YCCK through Adobe's inverted convention. JPEG uses the accurate integer DCT and
/// smooth chroma upsampling and is never scaled while decoding. EXIF orientation, colour profiles
/// and gamma are not applied. With AlphaRule::kWhite transparency, also that of a colour key or
/// palette, is composited on white first (transformers >= 5).
///
/// @throws DataError "origin: ..." with the decoder's words when the data is truncated or corrupt.
RgbImage decode_image(std::span<const std::byte> bytes, std::string_view origin,
                      AlphaRule alpha = AlphaRule::kDrop, const ImageLimits& limits = {});
RgbImage decode_image(const std::filesystem::path& path, AlphaRule alpha = AlphaRule::kDrop,
                      const ImageLimits& limits = {});

/// How the samples of a Picture are to be read.
enum class PictureMode { kGrey, kGreyAlpha, kRgb, kRgba, kCmyk, kPalette };

/// A picture as the file has it, before it becomes RGB. Only preparation steps that work in the
/// file's own mode (resizing before conversion) need it; others call `decode_image`. 16-bit grey is
/// already clamped to 8 bits here.
struct Picture {
  PictureMode mode = PictureMode::kRgb;
  ImageSize size;
  std::vector<uint8_t> samples;                     ///< [height, width, channels()]
  std::vector<std::array<uint8_t, 4>> palette;      ///< kPalette: colour and alpha of 256 entries
  std::optional<std::array<uint8_t, 3>> color_key;  ///< this colour is transparent (kGrey, kRgb)
  bool has_alpha = false;  ///< an alpha channel, a colour key or a palette with transparency
  bool nearest_only =
      false;  ///< bilevel, 16-bit grey, palette: Pillow resizes these by picking pixels
  std::string warning;

  int channels() const;
};

Picture decode_picture(std::span<const std::byte> bytes, std::string_view origin,
                       const ImageLimits& limits = {});
RgbImage to_rgb(Picture picture, AlphaRule alpha);
Picture to_picture(RgbImage image);

}  // namespace triptych

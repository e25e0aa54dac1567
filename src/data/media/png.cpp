// PNG through libpng, kept as close to the file's own mode as Pillow keeps it.

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "base/error.h"
#include "data/media/codecs.h"

namespace triptych::codecs {
namespace {

struct Header {
  ImageSize size;
  int bits = 0, color = 0;
};

uint32_t big_endian(Bytes bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[at + i]);
  return value;
}

Header read_header(Bytes bytes, std::string_view origin) {
  require<DataError>(bytes.size() >= 33 && std::memcmp(bytes.data() + 12, "IHDR", 4) == 0, origin,
                     ": PNG: the header is missing or cut off after ", bytes.size(), " bytes");
  const auto width = big_endian(bytes, 16), height = big_endian(bytes, 20);
  require<DataError>(width <= 0x7fffffff && height <= 0x7fffffff, origin, ": PNG: size ", width,
                     " x ", height, " is beyond the format's 2^31 - 1");
  return {{width, height}, std::to_integer<int>(bytes[24]), std::to_integer<int>(bytes[25])};
}

/// libpng jumps out of its calls on errors: no object with a destructor may live between the jump's
/// ends, so everything that owns memory stands in this class.
class Reader {
 public:
  Reader(Bytes bytes, std::string_view origin) : bytes_(bytes), origin_(origin) {
    png_ = png_create_read_struct(
        PNG_LIBPNG_VER_STRING, this,
        [](png_structp png, png_const_charp message) {
          auto& self = *static_cast<Reader*>(png_get_error_ptr(png));
          std::strncpy(self.message_, message, sizeof self.message_ - 1);
          png_longjmp(png, 1);
        },
        [](png_structp, png_const_charp) {});  // about colour profiles and the like
    info_ = png_ ? png_create_info_struct(png_) : nullptr;
    if (!info_) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~Reader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Picture decode() {
    if (!start()) give_up();
    choose_mode();
    if (!transform()) give_up();
    const int64_t row_bytes = static_cast<int64_t>(png_get_rowbytes(png_, info_));
    const int sample_bytes = grey16_ ? 2 : 1;
    require<DataError>(row_bytes == picture_.size.width * picture_.channels() * sample_bytes,
                       origin_, ": PNG: rows of ", row_bytes, " bytes for ", picture_.size.width,
                       " pixels");
    picture_.samples.resize(row_bytes * picture_.size.height);
    for (int64_t y = 0; y < picture_.size.height; ++y) {
      rows_.push_back(picture_.samples.data() + y * row_bytes);
    }
    if (!read_rows()) give_up();
    if (grey16_) clamp_grey();
    return std::move(picture_);
  }

 private:
  bool start() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);  // the caller's limit is in pixels
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_check_for_invalid_index(png_, 0);  // such pixels are black, as in Pillow
    png_set_read_fn(png_, this, [](png_structp png, png_bytep out, size_t count) {
      auto& self = *static_cast<Reader*>(png_get_io_ptr(png));
      if (count > self.bytes_.size() - self.at_) png_error(png, "the file ends too early");
      std::memcpy(out, self.bytes_.data() + self.at_, count);
      self.at_ += count;
    });
    png_read_info(png_, info_);
    return true;
  }

  void choose_mode() {
    picture_.size = {png_get_image_width(png_, info_), png_get_image_height(png_, info_)};
    bits_ = png_get_bit_depth(png_, info_);
    png_bytep alphas = nullptr;
    int num_alphas = 0;
    png_color_16p key = nullptr;
    const bool has_key = png_get_tRNS(png_, info_, &alphas, &num_alphas, &key) != 0;
    // Pillow compares the low byte of the key, whatever the depth, with its 8-bit sample.
    const auto low = [](png_uint_16 v) { return static_cast<uint8_t>(v & 0xff); };

    switch (png_get_color_type(png_, info_)) {
      case PNG_COLOR_TYPE_GRAY:
        picture_.mode = PictureMode::kGrey;
        picture_.nearest_only = bits_ == 1;
        grey16_ = bits_ == 16;
        if (has_key) {
          const uint8_t value = bits_ == 1 ? (key->gray ? 255 : 0) : low(key->gray);
          picture_.color_key = {{value, value, value}};
        }
        break;
      case PNG_COLOR_TYPE_GRAY_ALPHA:
        picture_.mode = PictureMode::kGreyAlpha;
        break;
      case PNG_COLOR_TYPE_RGB:
        picture_.mode = PictureMode::kRgb;
        if (has_key) picture_.color_key = {{low(key->red), low(key->green), low(key->blue)}};
        break;
      case PNG_COLOR_TYPE_RGB_ALPHA:
        picture_.mode = PictureMode::kRgba;
        break;
      case PNG_COLOR_TYPE_PALETTE: {
        picture_.mode = PictureMode::kPalette;
        picture_.nearest_only = true;
        png_colorp colors = nullptr;
        int num_colors = 0;
        png_get_PLTE(png_, info_, &colors, &num_colors);
        picture_.palette.assign(256, {0, 0, 0, 255});
        for (int i = 0; i < std::min(num_colors, 256); ++i) {
          picture_.palette[i] = {colors[i].red, colors[i].green, colors[i].blue, 255};
        }
        for (int i = 0; i < std::min(num_alphas, 256); ++i) picture_.palette[i][3] = alphas[i];
        break;
      }
      default:
        fail<DataError>(origin_, ": PNG: unknown colour type");
    }
    picture_.has_alpha =
        has_key || picture_.mode == PictureMode::kGreyAlpha || picture_.mode == PictureMode::kRgba;
  }

  bool transform() {
    if (setjmp(png_jmpbuf(png_))) return false;
    if (picture_.mode == PictureMode::kPalette) {
      png_set_packing(png_);
    } else if (bits_ < 8) {
      png_set_expand_gray_1_2_4_to_8(png_);
    } else if (bits_ == 16 && !grey16_) {
      png_set_strip_16(png_);
    }
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read_rows() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_image(png_, rows_.data());
    return true;
  }

  /// 16-bit grey becomes 8 bits by clamping, not by shifting: what Pillow does on the way to RGB.
  void clamp_grey() {
    auto& s = picture_.samples;
    for (size_t i = 0; i < s.size() / 2; ++i) s[i] = s[2 * i] ? 255 : s[2 * i + 1];
    s.resize(s.size() / 2);
  }

  [[noreturn]] void give_up() { fail<DataError>(origin_, ": PNG: ", message_); }

  Bytes bytes_;
  size_t at_ = 0;
  std::string_view origin_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int bits_ = 8;
  bool grey16_ = false;
  Picture picture_;
  std::vector<png_bytep> rows_;
  char message_[200] = {};
};

}  // namespace

ImageSize probe_png(Bytes bytes, std::string_view origin) {
  return read_header(bytes, origin).size;
}

Picture decode_png(Bytes bytes, std::string_view origin) { return Reader(bytes, origin).decode(); }

}  // namespace triptych::codecs

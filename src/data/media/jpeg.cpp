// JPEG through libjpeg-turbo. The library reports errors by a callback that must not return and
// must not throw through C frames, hence setjmp; no object with a destructor lives between the
// jump's ends.

// clang-format off: jpeglib.h uses FILE and size_t without declaring them
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <algorithm>
#include <array>
#include <csetjmp>
#include <string>

#include "base/error.h"
#include "data/media/codecs.h"

namespace triptych::codecs {
namespace {

/// Scans of a progressive file: real ones have about ten; thousands are an attack on our time.
constexpr int kMaxScans = 500;
constexpr int kRowsAtOnce = 16;

class Reader {
 public:
  Reader(Bytes bytes, std::string_view origin) : origin_(origin) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = [](j_common_ptr info) {
      auto& self = *static_cast<Reader*>(info->client_data);
      info->err->format_message(info, self.message_.data());
      std::longjmp(self.jump_, 1);
    };
    errors_.emit_message = [](j_common_ptr info, int level) {
      if (level >= 0) return;  // traces
      auto& self = *static_cast<Reader*>(info->client_data);
      // The end of the data is fatal for the reference; other damage is decoded around.
      if (info->err->msg_code == JWRN_JPEG_EOF) info->err->error_exit(info);
      if (info->err->num_warnings++ == 0) info->err->format_message(info, self.warning_.data());
    };
    progress_.progress_monitor = [](j_common_ptr info) {
      auto& self = *static_cast<Reader*>(info->client_data);
      if (self.info_.input_scan_number > kMaxScans) {
        std::snprintf(self.message_.data(), self.message_.size(), "more than %d scans", kMaxScans);
        std::longjmp(self.jump_, 1);
      }
    };
    if (!create(bytes)) give_up();
  }
  ~Reader() { jpeg_destroy_decompress(&info_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  ImageSize size() const { return {info_.image_width, info_.image_height}; }

  PictureMode mode() const {
    switch (info_.num_components) {
      case 1:
        return PictureMode::kGrey;
      case 3:
        return PictureMode::kRgb;
      case 4:
        return PictureMode::kCmyk;
      default:
        fail<DataError>(origin_, ": JPEG with ", info_.num_components,
                        " components; 1 (grey), 3 (colour) and 4 (CMYK) can be read");
    }
  }

  Picture decode() {
    Picture picture{.mode = mode(), .size = size()};
    info_.out_color_space = picture.mode == PictureMode::kGrey  ? JCS_GRAYSCALE
                            : picture.mode == PictureMode::kRgb ? JCS_RGB
                                                                : JCS_CMYK;
    info_.dct_method = JDCT_ISLOW;
    info_.do_fancy_upsampling = TRUE;
    picture.samples.resize(picture.size.pixels() * picture.channels());
    if (!read_rows(picture.samples.data(), picture.size.width * picture.channels())) give_up();
    if (picture.mode == PictureMode::kCmyk) {  // Adobe stores ink inverted, and so does everyone
      for (auto& ink : picture.samples) ink = 255 - ink;
    }
    if (errors_.num_warnings > 0) picture.warning = warning_.data();
    return picture;
  }

 private:
  bool create(Bytes bytes) {
    if (setjmp(jump_)) return false;
    jpeg_create_decompress(&info_);
    info_.progress = &progress_;
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  bool read_rows(uint8_t* out, size_t row_bytes) {
    if (setjmp(jump_)) return false;
    jpeg_start_decompress(&info_);
    JSAMPROW rows[kRowsAtOnce];
    while (info_.output_scanline < info_.output_height) {
      const JDIMENSION first = info_.output_scanline;
      const JDIMENSION count = std::min<JDIMENSION>(kRowsAtOnce, info_.output_height - first);
      for (JDIMENSION i = 0; i < count; ++i) rows[i] = out + (first + i) * row_bytes;
      jpeg_read_scanlines(&info_, rows, count);
    }
    jpeg_finish_decompress(&info_);
    return true;
  }

  [[noreturn]] void give_up() {
    const std::string message = message_.data();
    jpeg_destroy_decompress(&info_);  // harmless twice; the constructor's caller has no destructor
    fail<DataError>(origin_, ": JPEG: ", message);
  }

  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_;
  std::array<char, JMSG_LENGTH_MAX> message_{}, warning_{};
  std::string_view origin_;
};

}  // namespace

ImageSize probe_jpeg(Bytes bytes, std::string_view origin) { return Reader(bytes, origin).size(); }

Picture decode_jpeg(Bytes bytes, std::string_view origin) { return Reader(bytes, origin).decode(); }

}  // namespace triptych::codecs

#include "data/media/encode.h"

// clang-format off: jpeglib.h uses FILE and size_t without declaring them
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <png.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdlib>
#include <string_view>
#include <vector>

extern "C" {
#include <libavutil/opt.h>
}

#include "base/error.h"
#include "base/files.h"
#include "data/media/ffmpeg.h"

namespace triptych {
namespace {

struct PngWriter {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string bytes;
  std::vector<png_bytep> rows;

  ~PngWriter() { png_destroy_write_struct(&png, &info); }

  bool write(const RgbImage& image) {  // libpng jumps out on errors, see png.cpp
    if (setjmp(png_jmpbuf(png))) return false;
    png_set_write_fn(
        png, this,
        [](png_structp p, png_bytep data, size_t size) {
          static_cast<PngWriter*>(png_get_io_ptr(p))
              ->bytes.append(reinterpret_cast<const char*>(data), size);
        },
        nullptr);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(png, info, static_cast<png_uint_32>(image.size.width),
                 static_cast<png_uint_32>(image.size.height), 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    png_write_image(png, rows.data());
    png_write_end(png, info);
    return true;
  }
};

struct JpegWriter {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump;
  unsigned char* bytes = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type

  ~JpegWriter() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }

  bool write(const RgbImage& image, int quality) {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
    errors.error_exit = [](j_common_ptr common) {
      std::longjmp(static_cast<JpegWriter*>(common->client_data)->jump, 1);
    };
    if (setjmp(jump)) return false;
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &bytes, &size);
    info.image_width = static_cast<JDIMENSION>(image.size.width);
    info.image_height = static_cast<JDIMENSION>(image.size.height);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, quality, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
      auto* row = const_cast<JSAMPROW>(&image.pixels[info.next_scanline * image.size.width * 3]);
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    return true;
  }
};

void check_picture(const RgbImage& image, std::string_view who) {
  require(image.size.width > 0 && image.size.height > 0 &&
              std::ssize(image.pixels) == image.size.pixels() * 3,
          who, ": ", image.pixels.size(), " bytes for ", image.size.width, " x ", image.size.height,
          " pixels");
}

struct FreeOutput {
  void operator()(AVFormatContext* p) const {
    if (p->pb) avio_closep(&p->pb);
    avformat_free_context(p);
  }
};

const AVCodec* find_encoder(VideoCodec wanted) {
  const AVCodec* codec = nullptr;
  if (wanted != VideoCodec::kMpeg4) codec = avcodec_find_encoder_by_name("libx264");
  if (!codec && wanted == VideoCodec::kH264) codec = avcodec_find_encoder(AV_CODEC_ID_H264);
  if (!codec && wanted != VideoCodec::kH264) codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
  require(codec != nullptr, "this FFmpeg has no encoder for ",
          wanted == VideoCodec::kMpeg4 ? "MPEG-4" : "H.264");
  return codec;
}

/// One mp4 being written.
class VideoWriter {
 public:
  /// @param name  its extension says which container
  VideoWriter(const std::filesystem::path& path, const std::string& name, ImageSize size,
              const VideoEncodeOptions& options)
      : path_(path), size_(size) {
    ffmpeg::be_quiet();
    AVFormatContext* raw = nullptr;
    const auto* container = av_guess_format(nullptr, name.c_str(), nullptr);
    require(container != nullptr, name, ": no video format has this extension; use .mp4 or .mkv");
    check(avformat_alloc_output_context2(&raw, container, nullptr, path_.c_str()), "creating");
    output_.reset(raw);
    const auto* codec = find_encoder(options.codec);
    codec_.reset(avcodec_alloc_context3(codec));
    configure(*codec, options);
    check(avcodec_open2(codec_.get(), codec, nullptr), "opening the encoder");
    stream_ = avformat_new_stream(raw, nullptr);
    require(stream_ != nullptr, path_, ": out of memory");
    stream_->time_base = codec_->time_base;
    stream_->avg_frame_rate = codec_->framerate;
    check(avcodec_parameters_from_context(stream_->codecpar, codec_.get()), "the header");
    check(avio_open(&raw->pb, ("file:" + path_).c_str(), AVIO_FLAG_WRITE), "opening");
    check(avformat_write_header(raw, nullptr), "writing the header");
    make_frame();
  }

  void add(const RgbImage& image, int64_t number) {
    check(av_frame_make_writable(frame_.get()), "a frame");
    const uint8_t* planes[4] = {image.pixels.data()};
    const int strides[4] = {static_cast<int>(size_.width * 3)};
    sws_scale(scaler_.get(), planes, strides, 0, frame_->height, frame_->data, frame_->linesize);
    frame_->pts = number;
    encode(frame_.get());
  }

  void finish() {
    encode(nullptr);
    check(av_write_trailer(output_.get()), "finishing");
  }

 private:
  void check(int result, std::string_view what) const {
    require(result >= 0, path_, ": ", what, ": ", ffmpeg::words(result));
  }

  void configure(const AVCodec& codec, const VideoEncodeOptions& options) {
    codec_->width = static_cast<int>(size_.width);
    codec_->height = static_cast<int>(size_.height);
    codec_->pix_fmt = AV_PIX_FMT_YUV420P;
    codec_->framerate = av_d2q(options.fps, 60000);
    codec_->time_base = av_inv_q(codec_->framerate);
    codec_->colorspace = AVCOL_SPC_SMPTE170M;
    codec_->color_primaries = AVCOL_PRI_SMPTE170M;
    codec_->color_trc = AVCOL_TRC_SMPTE170M;
    codec_->color_range = AVCOL_RANGE_MPEG;
    codec_->thread_count = 1;  // the same bytes on every machine
    if (options.key_frame_every > 0) codec_->gop_size = options.key_frame_every;
    if (output_->oformat->flags & AVFMT_GLOBALHEADER) codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (codec.id == AV_CODEC_ID_H264) {
      av_opt_set_int(codec_->priv_data, "crf", options.quality, 0);
    } else {
      codec_->flags |= AV_CODEC_FLAG_QSCALE;
      codec_->global_quality = FF_QP2LAMBDA * std::clamp(1 + options.quality * 30 / 51, 1, 31);
    }
  }

  void make_frame() {
    frame_.reset(av_frame_alloc());
    frame_->format = codec_->pix_fmt;
    frame_->width = codec_->width;
    frame_->height = codec_->height;
    frame_->colorspace = codec_->colorspace;
    frame_->color_range = codec_->color_range;
    check(av_frame_get_buffer(frame_.get(), 0), "a frame");
    scaler_.reset(sws_getContext(codec_->width, codec_->height, AV_PIX_FMT_RGB24, codec_->width,
                                 codec_->height, codec_->pix_fmt,
                                 SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP, nullptr,
                                 nullptr, nullptr));
    require(scaler_ != nullptr, path_, ": no conversion from RGB");
    constexpr int kUnit = 1 << 16;
    sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(SWS_CS_DEFAULT), 1,
                             sws_getCoefficients(SWS_CS_ITU601), 0, 0, kUnit, kUnit);
  }

  void encode(const AVFrame* frame) {
    check(avcodec_send_frame(codec_.get(), frame), "encoding");
    while (true) {
      const int result = avcodec_receive_packet(codec_.get(), packet_.get());
      if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
      check(result, "encoding");
      packet_->duration = 1;
      packet_->stream_index = stream_->index;
      av_packet_rescale_ts(packet_.get(), codec_->time_base, stream_->time_base);
      check(av_interleaved_write_frame(output_.get(), packet_.get()), "writing");
    }
  }

  std::string path_;
  ImageSize size_;
  std::unique_ptr<AVFormatContext, FreeOutput> output_;
  ffmpeg::Codec codec_;
  AVStream* stream_ = nullptr;
  ffmpeg::Frame frame_;
  ffmpeg::Packet packet_{av_packet_alloc()};
  ffmpeg::Scaler scaler_;
};

}  // namespace

std::string encode_png(const RgbImage& image) {
  check_picture(image, "encode_png");
  PngWriter writer;
  writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  writer.info = writer.png ? png_create_info_struct(writer.png) : nullptr;
  require(writer.info != nullptr, "encode_png: out of memory");
  for (int64_t y = 0; y < image.size.height; ++y) {
    writer.rows.push_back(const_cast<png_bytep>(&image.pixels[y * image.size.width * 3]));
  }
  require(writer.write(image), "encode_png: libpng failed");
  return std::move(writer.bytes);
}

std::string encode_jpeg(const RgbImage& image, int quality) {
  check_picture(image, "encode_jpeg");
  require(quality >= 1 && quality <= 100 && image.size.width <= JPEG_MAX_DIMENSION &&
              image.size.height <= JPEG_MAX_DIMENSION,
          "encode_jpeg: quality ", quality, " (1 to 100), size ", image.size.width, " x ",
          image.size.height, " (each at most ", JPEG_MAX_DIMENSION, ")");
  JpegWriter writer;
  require(writer.write(image, quality), "encode_jpeg: libjpeg failed");
  return {reinterpret_cast<const char*>(writer.bytes), writer.size};
}

void write_png(const std::filesystem::path& path, const RgbImage& image) {
  write_file_atomically(path, encode_png(image));
}

void write_video(const std::filesystem::path& path, std::span<const RgbImage> frames,
                 const VideoEncodeOptions& options) {
  require(!frames.empty(), path.string(), ": a video needs at least one frame");
  const auto size = frames[0].size;
  require(size.width > 0 && size.height > 0 && size.width % 2 == 0 && size.height % 2 == 0,
          path.string(), ": frames of ", size.width, " x ", size.height,
          " pixels; both sides must be even and above 0");
  require(options.fps > 0 && options.quality >= 0 && options.quality <= 51, path.string(), ": fps ",
          options.fps, " must be above 0, quality ", options.quality, " between 0 and 51");
  for (size_t i = 0; i < frames.size(); ++i) {
    require(frames[i].size == size && std::ssize(frames[i].pixels) == size.pixels() * 3,
            path.string(), ": frame ", i, " is ", frames[i].size.width, " x ",
            frames[i].size.height, " pixels, the first is ", size.width, " x ", size.height);
  }
  // Beside the target and renamed when complete: nobody sees half a video.
  auto partial = path;
  partial += ".partial";
  try {
    VideoWriter writer(partial, path.string(), size, options);
    for (size_t i = 0; i < frames.size(); ++i) writer.add(frames[i], static_cast<int64_t>(i));
    writer.finish();
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw;
  }
  std::filesystem::rename(partial, path);
}

}  // namespace triptych

// WebP through libwebp. Of an animation the first frame is taken, on its canvas, as Pillow does.

#include <webp/decode.h>
#include <webp/demux.h>

#include <cstring>
#include <memory>

#include "base/error.h"
#include "data/media/codecs.h"

namespace triptych::codecs {
namespace {

const uint8_t* data(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

std::string_view words(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_BITSTREAM_ERROR:
      return "bitstream error";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "unsupported feature";
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "not enough data";
    default:
      return "invalid data";
  }
}

WebPBitstreamFeatures features(Bytes bytes, std::string_view origin) {
  WebPBitstreamFeatures found{};
  const auto status = WebPGetFeatures(data(bytes), bytes.size(), &found);
  require<DataError>(status == VP8_STATUS_OK, origin, ": WebP: ", words(status));
  return found;
}

void decode_first_frame(Bytes bytes, std::string_view origin, Picture& picture) {
  WebPAnimDecoderOptions options;
  WebPAnimDecoderOptionsInit(&options);
  const WebPData input{data(bytes), bytes.size()};
  const std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&input, &options), WebPAnimDecoderDelete);
  uint8_t* frame = nullptr;
  int timestamp = 0;
  require<DataError>(decoder && WebPAnimDecoderGetNext(decoder.get(), &frame, &timestamp), origin,
                     ": WebP: the first frame of the animation cannot be decoded");
  std::memcpy(picture.samples.data(), frame, picture.samples.size());
}

}  // namespace

ImageSize probe_webp(Bytes bytes, std::string_view origin) {
  const auto found = features(bytes, origin);
  return {found.width, found.height};
}

Picture decode_webp(Bytes bytes, std::string_view origin) {
  const auto found = features(bytes, origin);
  Picture picture{.size = {found.width, found.height}};
  const bool four = found.has_alpha || found.has_animation;
  picture.mode = four ? PictureMode::kRgba : PictureMode::kRgb;
  picture.has_alpha = found.has_alpha;
  picture.samples.resize(picture.size.pixels() * picture.channels());
  if (found.has_animation) {
    decode_first_frame(bytes, origin, picture);
    if (!found.has_alpha) {  // what no frame covers is not transparent then
      for (size_t i = 3; i < picture.samples.size(); i += 4) picture.samples[i] = 255;
    }
    return picture;
  }

  WebPDecoderConfig config;
  require(WebPInitDecoderConfig(&config) != 0, "WebP: library and headers differ in version");
  config.output.colorspace = four ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = picture.samples.data();
  config.output.u.RGBA.stride = static_cast<int>(picture.size.width * picture.channels());
  config.output.u.RGBA.size = picture.samples.size();
  const auto status = WebPDecode(data(bytes), bytes.size(), &config);
  require<DataError>(status == VP8_STATUS_OK, origin, ": WebP: ", words(status));
  return picture;
}

}  // namespace triptych::codecs

#pragma once

// Owners and error texts for FFmpeg's C interface. Private to this folder.

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/error.h>
#include <libavutil/log.h>
#include <libswscale/swscale.h>
}

#include <array>
#include <memory>
#include <string>

namespace triptych::ffmpeg {

template <auto kFree>
struct FreeByAddress {
  template <class T>
  void operator()(T* p) const {
    kFree(&p);
  }
};

using Input = std::unique_ptr<AVFormatContext, FreeByAddress<avformat_close_input>>;
using Codec = std::unique_ptr<AVCodecContext, FreeByAddress<avcodec_free_context>>;
using Frame = std::unique_ptr<AVFrame, FreeByAddress<av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, FreeByAddress<av_packet_free>>;

struct FreeScaler {
  void operator()(SwsContext* p) const { sws_freeContext(p); }
};
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

inline std::string words(int error) {
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
  av_strerror(error, text.data(), text.size());
  return text.data();
}

/// FFmpeg prints on its own; what matters reaches our errors. Its level is one for the process.
inline void be_quiet() {
  [[maybe_unused]] static const bool done = (av_log_set_level(AV_LOG_QUIET), true);
}

}  // namespace triptych::ffmpeg

#include "data/media/video.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

extern "C" {
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
}

#include "base/error.h"
#include "base/format.h"
#include "data/media/ffmpeg.h"

namespace triptych {
namespace {

/// Gaps up to this many frames are decoded through: finding the key frame costs a look at every
/// packet.
constexpr int64_t kLongGap = 64;

double seconds(int64_t ticks, AVRational base) { return static_cast<double>(ticks) * av_q2d(base); }

/// An open container and its first video stream.
class Container {
 public:
  explicit Container(const std::filesystem::path& path) : path_(path) {
    ffmpeg::be_quiet();
    AVFormatContext* raw = nullptr;
    // "file:" keeps names with a colon from being taken for a protocol
    int error = avformat_open_input(&raw, ("file:" + path.string()).c_str(), nullptr, nullptr);
    require<DataError>(error >= 0, path_, ": cannot be opened as a video: ", ffmpeg::words(error));
    input_.reset(raw);
    error = avformat_find_stream_info(raw, nullptr);
    require<DataError>(error >= 0, path_, ": the video's header: ", ffmpeg::words(error));
    const int index = av_find_best_stream(raw, AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    require<DataError>(index >= 0, path_, ": the file has no video stream");
    stream_ = raw->streams[index];
    for (unsigned i = 0; i < raw->nb_streams; ++i) {
      if (static_cast<int>(i) != index) raw->streams[i]->discard = AVDISCARD_ALL;
    }
  }

  const std::string& path() const { return path_; }
  AVStream* stream() const { return stream_; }
  AVFormatContext* input() const { return input_.get(); }

  /// The next packet of the video stream; false at the end.
  bool read(AVPacket* packet) const {
    while (true) {
      const int error = av_read_frame(input_.get(), packet);
      if (error == AVERROR_EOF) return false;
      require<DataError>(error >= 0, path_, ": reading the video: ", ffmpeg::words(error));
      if (packet->stream_index == stream_->index) return true;
      av_packet_unref(packet);
    }
  }

  void rewind(int64_t timestamp) const {
    const int error = av_seek_frame(input_.get(), stream_->index, timestamp, AVSEEK_FLAG_BACKWARD);
    require<DataError>(error >= 0, path_, ": seeking to ", seconds(timestamp, stream_->time_base),
                       " s: ", ffmpeg::words(error));
  }

 private:
  std::string path_;
  ffmpeg::Input input_;
  AVStream* stream_ = nullptr;
};

/// Timestamps of all frames in the order they are shown, and which of them are key frames.
struct FrameIndex {
  std::vector<int64_t> times;  ///< [frames], ascending; empty when the file does not give them all
  std::vector<int64_t> keys;   ///< ascending
  int64_t frames = 0;          ///< packets that are shown
};

/// Looks at every packet without decoding; leaves the container at its end.
FrameIndex index_frames(const Container& container) {
  FrameIndex index;
  bool complete = true;
  const ffmpeg::Packet packet(av_packet_alloc());
  while (container.read(packet.get())) {
    if (!(packet->flags & AV_PKT_FLAG_DISCARD)) {  // cut off by an edit list, decoded but not shown
      ++index.frames;
      complete = complete && packet->pts != AV_NOPTS_VALUE;
      index.times.push_back(packet->pts);
    }
    if (packet->flags & AV_PKT_FLAG_KEY) index.keys.push_back(packet->pts);
    av_packet_unref(packet.get());
  }
  std::sort(index.times.begin(), index.times.end());
  std::sort(index.keys.begin(), index.keys.end());
  const auto& times = index.times;
  const bool distinct = std::adjacent_find(times.begin(), times.end()) == times.end();
  if (!complete || !distinct) index.times.clear();
  return index;
}

/// What the header says, where it can be relied on: an edit list may hide some of the frames it
/// counts.
int64_t count_frames(const Container& container) {
  auto* stream = container.stream();
  const int entries = avformat_index_get_entries_count(stream);
  bool plain = stream->nb_frames > 0 && entries == stream->nb_frames;
  for (int i = 0; plain && i < entries; ++i) {
    plain = !(avformat_index_get_entry(stream, i)->flags & AVINDEX_DISCARD_FRAME);
  }
  return plain ? stream->nb_frames : index_frames(container).frames;
}

int rotation_of(const AVStream* stream) {
  const auto* matrix = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
  if (matrix == nullptr) return 0;
  const double angle = -av_display_rotation_get(reinterpret_cast<const int32_t*>(matrix));
  if (std::isnan(angle)) return 0;
  return (static_cast<int>(std::lround(angle / 90)) * 90 % 360 + 360) % 360;
}

void check_size(const std::string& path, int64_t width, int64_t height, const ImageLimits& limits) {
  require<DataError>(width > 0 && height > 0, path,
                     ": no video stream that can be decoded: it is no video, its header is broken, "
                     "or its codec is not known");
  require<DataError>(height <= limits.max_pixels / width, path, ": frames of ", width, " x ",
                     height, " pixels, the limit is ", limits.max_pixels, " in all");
}

/// To RGB with the frame's own colour matrix and range.
class ToRgb {
 public:
  RgbImage convert(const AVFrame& frame) {
    prepare(frame);
    RgbImage image{.size = {frame.width, frame.height}};
    // the scaler may write a little beyond a row; its own padded buffer takes that
    const int stride = FFALIGN(frame.width * 3, 64);
    padded_.resize(static_cast<size_t>(stride) * frame.height + 64);
    uint8_t* planes[4] = {padded_.data()};
    const int strides[4] = {stride};
    sws_scale(scaler_.get(), frame.data, frame.linesize, 0, frame.height, planes, strides);
    image.pixels.resize(image.size.pixels() * 3);
    for (int64_t y = 0; y < frame.height; ++y) {
      std::copy_n(&padded_[y * stride], frame.width * 3, &image.pixels[y * frame.width * 3]);
    }
    return image;
  }

 private:
  struct Key {
    int width = 0, height = 0, format = -1, matrix = 0, range = 0;
    bool operator==(const Key&) const = default;
  };

  void prepare(const AVFrame& frame) {
    const Key key{frame.width, frame.height, frame.format, frame.colorspace, frame.color_range};
    if (scaler_ && key == key_) return;
    const auto format = static_cast<AVPixelFormat>(frame.format);
    scaler_.reset(sws_getContext(
        frame.width, frame.height, format, frame.width, frame.height, AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT, nullptr, nullptr, nullptr));
    const char* name = av_get_pix_fmt_name(format);
    require<DataError>(scaler_ != nullptr, "pixel format ", name ? name : "unknown",
                       " cannot be converted to RGB");
    const auto full_formats = {AV_PIX_FMT_YUVJ420P, AV_PIX_FMT_YUVJ422P, AV_PIX_FMT_YUVJ444P,
                               AV_PIX_FMT_YUVJ440P, AV_PIX_FMT_YUVJ411P};
    const bool full =
        frame.color_range == AVCOL_RANGE_JPEG ||
        std::find(full_formats.begin(), full_formats.end(), format) != full_formats.end();
    const int matrix = frame.colorspace == AVCOL_SPC_UNSPECIFIED
                           ? SWS_CS_ITU601
                           : static_cast<int>(frame.colorspace);
    constexpr int kUnit = 1 << 16;
    sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(matrix), full,
                             sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, kUnit, kUnit);
    key_ = key;
  }

  ffmpeg::Scaler scaler_;
  Key key_;
  std::vector<uint8_t> padded_;
};

/// Decodes frames in order and knows the number of each.
class Decoder {
 public:
  Decoder(const Container& container, const VideoLimits& limits)
      : container_(container),
        limits_(limits),
        packet_(av_packet_alloc()),
        frame_(av_frame_alloc()) {
    const auto* parameters = container.stream()->codecpar;
    const auto* codec = avcodec_find_decoder(parameters->codec_id);
    require<DataError>(codec != nullptr, container.path(), ": no decoder for codec ",
                       avcodec_get_name(parameters->codec_id));
    codec_.reset(avcodec_alloc_context3(codec));
    avcodec_parameters_to_context(codec_.get(), parameters);
    codec_->thread_count = 1;  // the loader's workers are the parallelism
    codec_->pkt_timebase = container.stream()->time_base;
    const int error = avcodec_open2(codec_.get(), codec, nullptr);
    require<DataError>(error >= 0, container.path(), ": opening codec ", codec->name, ": ",
                       ffmpeg::words(error));
  }

  /// The number that the next frame from `next` will have.
  int64_t position() const { return position_; }

  /// Continues at the key frame at or before frame `target`, if that is ahead of here.
  void skip_towards(int64_t target, const FrameIndex& index) {
    const int64_t time = index.times[target];
    const auto key = std::upper_bound(index.keys.begin(), index.keys.end(), time);
    if (key == index.keys.begin()) return;
    const auto at = std::lower_bound(index.times.begin(), index.times.end(), *(key - 1));
    if (at - index.times.begin() <= position_) return;
    container_.rewind(*(key - 1));
    avcodec_flush_buffers(codec_.get());
    drained_ = false;
    by_time_ = &index.times;
  }

  /// The next frame, or nothing at the end of the clip.
  const AVFrame* next(int64_t wanted) {
    while (true) {
      const int error = avcodec_receive_frame(codec_.get(), frame_.get());
      if (error == AVERROR_EOF) return nullptr;
      if (error == AVERROR(EAGAIN)) {
        feed(wanted);
        continue;
      }
      if (error < 0) fail_at(wanted, ffmpeg::words(error));
      number_frame();
      if (frame_->decode_error_flags != 0 || (frame_->flags & AV_FRAME_FLAG_CORRUPT)) {
        fail_at(position_ - 1, "the frame's data is corrupt");
      }
      check_size(container_.path(), frame_->width, frame_->height, limits_.frame);
      return frame_.get();
    }
  }

  [[noreturn]] void fail_at(int64_t number, std::string_view what) const {
    const double fps = av_q2d(container_.stream()->avg_frame_rate);
    const auto when =
        fps > 0 ? fmt::format(" ({:.2f} s)", static_cast<double>(number) / fps) : std::string();
    fail<DataError>(container_.path(), ": frame ", number, when, ": ", what);
  }

 private:
  void feed(int64_t wanted) {
    if (drained_) return;
    const bool more = container_.read(packet_.get());
    if (more && (packet_->flags & AV_PKT_FLAG_CORRUPT)) fail_at(wanted, "its packet is corrupt");
    const int error = avcodec_send_packet(codec_.get(), more ? packet_.get() : nullptr);
    av_packet_unref(packet_.get());
    drained_ = !more;
    if (error < 0) fail_at(std::max(position_, int64_t{0}), ffmpeg::words(error));
  }

  /// Counts; after a seek the timestamp says which frame this is.
  void number_frame() {
    if (by_time_) {
      const int64_t time = frame_->best_effort_timestamp;
      const auto at = std::lower_bound(by_time_->begin(), by_time_->end(), time);
      if (at == by_time_->end() || *at != time) {
        fail_at(position_, "its timestamp is not among those of the packets");
      }
      position_ = at - by_time_->begin();
    }
    ++position_;
  }

  const Container& container_;
  VideoLimits limits_;
  ffmpeg::Codec codec_;
  ffmpeg::Packet packet_;
  ffmpeg::Frame frame_;
  int64_t position_ = 0;
  bool drained_ = false;
  const std::vector<int64_t>* by_time_ = nullptr;
};

bool has_long_gap(std::span<const int64_t> indices) {
  int64_t at = 0;
  for (const int64_t i : indices) {
    if (i - at > kLongGap) return true;
    at = i;
  }
  return false;
}

}  // namespace

VideoInfo probe_video(const std::filesystem::path& path, const VideoLimits& limits) {
  const Container container(path);
  const auto* stream = container.stream();
  VideoInfo info;
  info.size = {stream->codecpar->width, stream->codecpar->height};
  check_size(container.path(), info.size.width, info.size.height, limits.frame);
  info.codec = avcodec_get_name(stream->codecpar->codec_id);
  info.rotation = rotation_of(stream);
  if (stream->avg_frame_rate.num > 0 && stream->avg_frame_rate.den > 0) {
    info.fps = av_q2d(stream->avg_frame_rate);
  }
  if (stream->duration != AV_NOPTS_VALUE && stream->duration > 0) {
    info.duration_s = seconds(stream->duration, stream->time_base);
  } else if (container.input()->duration > 0) {
    info.duration_s = seconds(container.input()->duration, {1, AV_TIME_BASE});
  }
  info.frames = count_frames(container);
  require<DataError>(info.frames > 0, container.path(), ": the video has no frames");
  require<DataError>(info.frames <= limits.max_frames, container.path(), ": ", info.frames,
                     " frames, the limit is ", limits.max_frames);
  if (info.fps <= 0 && info.duration_s > 0) {
    info.fps = static_cast<double>(info.frames) / info.duration_s;
  }
  return info;
}

void read_frames(const std::filesystem::path& path, std::span<const int64_t> indices,
                 const std::function<void(size_t, RgbImage)>& take, const VideoLimits& limits) {
  require(indices.empty() || (indices[0] >= 0 && std::is_sorted(indices.begin(), indices.end())),
          "read_frames: the indices must ascend from 0 or more");
  FrameIndex index;
  if (has_long_gap(indices)) index = index_frames(Container(path));

  std::optional<Container> container(std::in_place, path);
  std::optional<Decoder> decoder(std::in_place, *container, limits);
  ToRgb to_rgb;
  for (size_t place = 0; place < indices.size();) {
    const int64_t wanted = indices[place];
    if (wanted - decoder->position() > kLongGap && wanted < std::ssize(index.times)) {
      decoder->skip_towards(wanted, index);
    }
    const AVFrame* frame = nullptr;
    do {
      frame = decoder->next(wanted);
      if (!frame) {
        decoder->fail_at(
            wanted, fmt::format("missing: the video ends after {} frames", decoder->position()));
      }
    } while (decoder->position() <= wanted);
    if (decoder->position() - 1 != wanted) {
      if (index.times.empty()) decoder->fail_at(wanted, "missing among the decoded frames");
      // The seek went too far (some formats seek by decoding time): once more, all the way through.
      index.times.clear();
      decoder.reset();
      container.emplace(path);
      decoder.emplace(*container, limits);
      continue;
    }
    const auto image = to_rgb.convert(*frame);
    for (; place < indices.size() && indices[place] == wanted; ++place) take(place, image);
  }
}

std::vector<RgbImage> read_frames(const std::filesystem::path& path,
                                  std::span<const int64_t> indices, const VideoLimits& limits) {
  std::vector<RgbImage> frames;
  frames.reserve(indices.size());
  read_frames(
      path, indices, [&](size_t, RgbImage frame) { frames.push_back(std::move(frame)); }, limits);
  return frames;
}

}  // namespace triptych

#pragma once

// Writing pictures and clips: for tests, drawn examples and generated videos. No libtorch.

#include <filesystem>
#include <span>
#include <string>

#include "data/media/image.h"

namespace triptych {

/// The bytes of an 8-bit RGB PNG.
std::string encode_png(const RgbImage& image);
/// Replaces `path` atomically.
void write_png(const std::filesystem::path& path, const RgbImage& image);

/// The bytes of a JPEG with 4:2:0 chroma. @param quality 1 to 100, the library's scale
std::string encode_jpeg(const RgbImage& image, int quality = 90);

enum class VideoCodec {
  kAuto,  ///< H.264 where this FFmpeg can write it, else MPEG-4 part 2
  kH264,
  kMpeg4,
};

struct VideoEncodeOptions {
  double fps = 8;
  VideoCodec codec = VideoCodec::kAuto;
  int quality = 18;  ///< constant quality, 0 (lossless in H.264) to 51; MPEG-4: scaled to its 1..31
  int key_frame_every = 0;  ///< frames; 0 = the codec's default
};

/// Writes a clip in the container that the extension names (.mp4, .mkv): 4:2:0, BT.601 limited
/// range, and marked as such. All frames have one size, even in both dims.
/// @throws Error with FFmpeg's words, or naming the frame whose size differs.
void write_video(const std::filesystem::path& path, std::span<const RgbImage> frames,
                 const VideoEncodeOptions& options = {});

}  // namespace triptych

#pragma once

// Frames of video files through FFmpeg, and the rules by which models choose them. No libtorch.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/media/image.h"

namespace triptych {

/// Which frames are taken; the rules take different sets, so a run names its rule.
///   kTransformers  n = frames / fps * wanted fps, clamped to [min, max, frames], even;
///                  trunc(i * frames / n)
///   kQwenVlUtils   the same count, by round(linspace(0, frames - 1, n))
///   kLlamaFactory  n = floor(duration * wanted fps), at most max, at least 1;
///                  trunc(linspace(0, frames - 1, n)); an odd n repeats the last frame
enum class VideoSampling { kTransformers, kQwenVlUtils, kLlamaFactory };

struct VideoSamplingOptions {
  VideoSampling rule = VideoSampling::kTransformers;
  double fps = 2.0;        ///< wanted frames per second
  int64_t min_frames = 4;  ///< not used by kLlamaFactory
  int64_t max_frames = 768;
};

struct VideoLimits {
  ImageLimits frame;
  int64_t max_frames = 1 << 22;  ///< frames of a file; more is taken for a broken header
};

/// What is known of a clip without decoding its pictures.
struct VideoInfo {
  ImageSize size;
  int64_t frames = 0;
  double fps = 0;         ///< average; 0 = unknown (a folder or list of pictures)
  double duration_s = 0;  ///< 0 = unknown
  int rotation = 0;  ///< degrees clockwise a player would turn it: 0, 90, 180, 270; not applied
  std::string codec;
};

/// Reads the container's header; where it does not say how many frames there are, packets are
/// counted (no decoding). @throws DataError "path: ..." with FFmpeg's words.
VideoInfo probe_video(const std::filesystem::path& path, const VideoLimits& limits = {});

/// The frames a rule takes, ascending (kLlamaFactory may repeat the last), and their rate.
struct FrameChoice {
  std::vector<int64_t> indices;
  double fps = 0;  ///< of the chosen frames; a padded repeat is not counted
};
/// @param temporal_patch  counts are made multiples of it
/// @throws DataError when the clip has fewer frames than the rule can work with.
FrameChoice choose_frames(const VideoInfo& info, const VideoSamplingOptions& options,
                          int64_t temporal_patch = 2, std::string_view origin = "video");

/// Decodes the frames `indices` (ascending, repeats allowed) and hands them over in that order with
/// their place in `indices`. A long gap is skipped by seeking to the key frame before the next
/// wanted frame; short ones are decoded through. Colours use the stream's own matrix and range;
/// BT.601 and limited range where it names none, as the decoders of the references do. Rotation is
/// not applied.
///
/// @throws DataError "path: frame 17 (0.68 s): ..." for a frame that is corrupt or missing: none is
///   ever left out silently.
void read_frames(const std::filesystem::path& path, std::span<const int64_t> indices,
                 const std::function<void(size_t place, RgbImage frame)>& take,
                 const VideoLimits& limits = {});
/// All of them at once.
std::vector<RgbImage> read_frames(const std::filesystem::path& path,
                                  std::span<const int64_t> indices, const VideoLimits& limits = {});

}  // namespace triptych

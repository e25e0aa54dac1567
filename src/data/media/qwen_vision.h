#pragma once

// From picture and video files to the rows that Qwen2-VL's and Qwen2.5-VL's vision tower takes. No
// libtorch. Source: transformers 5.23, image_processing_qwen2_vl; docs/spec/qwen2_5_vl.md,
// section 4.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/media/image.h"
#include "data/media/patchify.h"
#include "data/media/resize.h"
#include "data/media/video.h"
#include "data/sample.h"

namespace triptych {

/// Areas in pixels.
struct PixelLimits {
  int64_t min_pixels = 3136, max_pixels = 1003520;
  bool operator==(const PixelLimits&) const = default;
};

/// The size that a picture is resized to: both sides multiples of `factor`, the area within
/// `limits`, the shape about kept. Halves round to even; very long pictures may stay above
/// max_pixels.
/// @throws DataError "origin: ..." when one side is more than 200 times the other, or is 0.
ImageSize smart_resize(ImageSize size, int64_t factor, const PixelLimits& limits,
                       std::string_view origin = "picture");

/// What some suites do to a picture before the processor sees it (data.image_pre_resize).
enum class PreResize { kNone, kLlamaFactory, kMindSpeed };
/// data.image_resize; kAuto: Pillow for pictures (torch where the folder names a "Fast" processor),
/// torch for video (Pillow after a pre-resize, whose suites used the older processor).
enum class ResizeChoice { kAuto, kPillow, kTorch };
/// data.image_alpha; kAuto: white, but drop after a pre-resize.
enum class AlphaChoice { kAuto, kWhite, kDrop };

/// Everything that decides pixel values. Defaults are the reference class's.
struct VisionOptions {
  int64_t patch = 14, merge = 2, temporal_patch = 2;
  PixelLimits image, video;  ///< of the processor; video: of one frame
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};
  double rescale = 1.0 / 255;
  bool fast_processor = false;  ///< the folder names a "Fast" (torchvision) processor

  PreResize pre_resize = PreResize::kNone;
  PixelLimits image_pre{1024, 589824}, video_pre{256, 65536};  ///< of the pre-resize
  ResizeChoice resize = ResizeChoice::kAuto;
  AlphaChoice alpha = AlphaChoice::kAuto;

  VideoSamplingOptions sampling;
  ImageLimits image_limits;
  VideoLimits video_limits;
};

/// Reads `preprocessor_config.json` of a model folder, and `video_preprocessor_config.json` (else
/// video takes the limits of pictures). Keys min_pixels and max_pixels win over size.shortest_edge
/// and size.longest_edge. @throws DataError naming file and key for what this code does not do.
VisionOptions read_vision_options(const std::filesystem::path& model_folder);

/// What the run file says; what is absent stays as it is. Pixel limits are those of the processor,
/// or of the pre-resize when there is one (the processor then keeps the folder's).
struct VisionOverrides {
  std::optional<int64_t> image_min_pixels, image_max_pixels, video_min_pixels, video_max_pixels;
  PreResize pre_resize = PreResize::kNone;
  ResizeChoice resize = ResizeChoice::kAuto;
  AlphaChoice alpha = AlphaChoice::kAuto;
  VideoSamplingOptions sampling;
};
VisionOptions apply(VisionOptions options, const VisionOverrides& overrides);

/// A video: one file, or pictures that are its frames.
struct VideoSource {
  std::filesystem::path file;  ///< empty when `pictures` is used
  std::vector<std::filesystem::path> pictures;
};

/// Sizes known before any pixel is decoded.
struct MediaPlan {
  Grid grid;
  int64_t tokens = 0;             ///< placeholders: grid.patches() / merge^2
  double seconds_per_grid = 1.0;  ///< video
  std::vector<int64_t> frames;    ///< video: indices that will be decoded
};

/// Turns files into patches. Immutable after construction; all methods may run in many threads.
class QwenVision {
 public:
  /// @throws UsageError when the options contradict each other.
  explicit QwenVision(const VisionOptions& options);

  const VisionOptions& options() const { return options_; }
  int64_t patch_dim() const {
    return 3 * options_.temporal_patch * options_.patch * options_.patch;
  }
  int64_t tokens(const Grid& grid) const {
    return grid.patches() / (options_.merge * options_.merge);
  }

  /// Grid of a picture of this size.
  MediaPlan plan_image(ImageSize size, std::string_view origin = "picture") const;
  /// Grid from a file's header.
  MediaPlan plan_image(const std::filesystem::path& path) const;
  MediaPlan plan_video(const VideoSource& source) const;

  /// [grid.patches(), patch_dim()]; rows: time step, cell row, cell column, row and column inside
  /// the cell; inside a row: channel, frame, y, x.
  MediaPatches image(std::span<const std::byte> bytes, std::string_view origin) const;
  MediaPatches image(const std::filesystem::path& path) const;
  /// From a picture already decoded; a pre-resize is applied as to a file.
  MediaPatches image(Picture picture, std::string_view origin = "picture") const;

  MediaPatches video(const VideoSource& source) const;
  /// From frames already chosen; all of one size. @param fps of these frames; 0 = unknown (24).
  MediaPatches video(std::span<const RgbImage> frames, double fps,
                     std::string_view origin = "video") const;

 private:
  MediaPlan plan(ImageSize size, int64_t frames, MediaKind kind, std::string_view origin) const;
  MediaPatches image_patches(const RgbImage& image, std::string_view origin) const;
  /// @param frames  calls the function it is given with every frame in order
  MediaPatches collect_video(
      const MediaPlan& plan, std::string_view origin,
      const std::function<void(const std::function<void(Picture)>&)>& frames) const;

  VisionOptions options_;
  NormalizeTable image_table_, video_table_;
};

}  // namespace triptych

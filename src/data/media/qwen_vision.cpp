#include "data/media/qwen_vision.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "data/media/codecs.h"
#include "data/media/patchify.h"
#include "data/media/pre_resize.h"
#include "data/media/resize_plan.h"

namespace triptych {
namespace {

constexpr double kMostAspect = 200;
constexpr double kUnknownFps = 24;  // what transformers takes when the rate of a clip is unknown

/// std::nearbyint in the default mode rounds halves to even, as Python does.
int64_t round_to_multiple(int64_t value, int64_t factor) {
  return static_cast<int64_t>(
             std::nearbyint(static_cast<double>(value) / static_cast<double>(factor))) *
         factor;
}

bool uses_torch(const VisionOptions& o, MediaKind kind) {
  if (o.resize != ResizeChoice::kAuto) return o.resize == ResizeChoice::kTorch;
  if (kind == MediaKind::kImage) return o.fast_processor;
  return o.pre_resize == PreResize::kNone;
}

AlphaRule alpha_rule(const VisionOptions& o) {
  if (o.alpha != AlphaChoice::kAuto) {
    return o.alpha == AlphaChoice::kWhite ? AlphaRule::kWhite : AlphaRule::kDrop;
  }
  return o.pre_resize == PreResize::kNone ? AlphaRule::kWhite : AlphaRule::kDrop;
}

NormalizeTable make_table(const VisionOptions& o, MediaKind kind) {
  return {o.mean, o.std, o.rescale,
          uses_torch(o, kind) ? NormalizeRule::kTorch : NormalizeRule::kPillow};
}

/// A picture on its way to `to`, given out in bands of rows so that a band is still in the cache
/// when it is cut into patches.
class ResizedBands {
 public:
  ResizedBands(const ResizePlan& plan, const RgbImage& image, int64_t band_rows) : plan_(plan) {
    const int64_t row_bytes = plan.to().width * 3;
    if (plan.from() == plan.to()) {
      whole_ = image.pixels.data();
    } else if (plan.vertical_first()) {
      buffer_ = std::make_unique_for_overwrite<uint8_t[]>(plan.to().height * row_bytes);
      plan.run(image.pixels.data(), buffer_.get());
      whole_ = buffer_.get();
    } else {
      buffer_ = std::make_unique_for_overwrite<uint8_t[]>(plan.from().height * row_bytes);
      band_ = std::make_unique_for_overwrite<uint8_t[]>(band_rows * row_bytes);
      plan.horizontal(image.pixels.data(), buffer_.get());
    }
  }

  const uint8_t* band(int64_t begin, int64_t end) {
    if (whole_) return whole_ + begin * plan_.to().width * 3;
    plan_.vertical(buffer_.get(), begin, end, band_.get());
    return band_.get();
  }

 private:
  const ResizePlan& plan_;
  std::unique_ptr<uint8_t[]> buffer_, band_;
  const uint8_t* whole_ = nullptr;
};

/// Collects the frames of one picture or clip, all of one size, into patches.
class PatchWriter {
 public:
  PatchWriter(const VisionOptions& o, const NormalizeTable& table, MediaKind kind, ImageSize from,
              Grid grid)
      : shape_{o.patch, o.merge, o.temporal_patch},
        table_(table),
        plan_(from, {grid.w * o.patch, grid.h * o.patch}, 3,
              {.precision =
                   uses_torch(o, kind) ? WeightPrecision::kTorch : WeightPrecision::kPillow}) {
    media_.kind = kind;
    media_.grid = grid;
    media_.rows.reserve(grid.patches() * shape_.dim());
  }

  /// Adds one time step; one frame alone stands for all of the step's.
  void add_step(std::span<const RgbImage* const> frames) {
    std::vector<ResizedBands> resized;
    for (const auto* frame : frames) resized.emplace_back(plan_, *frame, shape_.cell());
    std::vector<const uint8_t*> bands(frames.size());
    for (int64_t y = 0; y < plan_.to().height; y += shape_.cell()) {
      for (size_t f = 0; f < frames.size(); ++f) bands[f] = resized[f].band(y, y + shape_.cell());
      append_cell_row(bands, plan_.to().width, shape_, table_, simd_level(), media_.rows);
    }
  }

  MediaPatches take() { return std::move(media_); }

 private:
  PatchShape shape_;
  const NormalizeTable& table_;
  ResizePlan plan_;
  MediaPatches media_;
};

/// Gathers frames into time steps; the last frame fills up an incomplete step.
class StepWriter {
 public:
  StepWriter(PatchWriter& writer, int64_t temporal) : writer_(writer), temporal_(temporal) {}

  void add(RgbImage frame) {
    held_.push_back(std::move(frame));
    if (static_cast<int64_t>(held_.size()) == temporal_) flush();
  }
  void finish() {
    if (!held_.empty()) flush();
  }

 private:
  void flush() {
    std::vector<const RgbImage*> step;
    for (int64_t f = 0; f < temporal_; ++f) {
      step.push_back(&held_[std::min<size_t>(f, held_.size() - 1)]);
    }
    writer_.add_step(step);
    held_.clear();
  }

  PatchWriter& writer_;
  int64_t temporal_;
  std::vector<RgbImage> held_;
};

std::string origin_of(const VideoSource& source) {
  if (!source.file.empty()) return source.file.string();
  return source.pictures.empty() ? "video" : source.pictures[0].string() + " (and further frames)";
}

}  // namespace

ImageSize smart_resize(ImageSize size, int64_t factor, const PixelLimits& limits,
                       std::string_view origin) {
  const auto [width, height] = size;
  require<DataError>(width > 0 && height > 0, origin, ": ", width, " x ", height,
                     " pixels; both sides must be at least 1");
  const double aspect =
      static_cast<double>(std::max(width, height)) / static_cast<double>(std::min(width, height));
  require<DataError>(aspect <= kMostAspect, origin, ": ", width, " x ", height,
                     " pixels: one side is ", aspect, " times the other; up to ", kMostAspect,
                     " is possible");
  int64_t w = round_to_multiple(width, factor), h = round_to_multiple(height, factor);
  const double f = static_cast<double>(factor), area = static_cast<double>(width * height);
  if (h * w > limits.max_pixels) {
    const double beta = std::sqrt(area / static_cast<double>(limits.max_pixels));
    const auto shrink = [&](int64_t side) {
      const auto cells = static_cast<int64_t>(std::floor(static_cast<double>(side) / beta / f));
      return std::max(factor, cells * factor);
    };
    h = shrink(height), w = shrink(width);
  } else if (h * w < limits.min_pixels) {
    const double beta = std::sqrt(static_cast<double>(limits.min_pixels) / area);
    const auto grow = [&](int64_t side) {
      return static_cast<int64_t>(std::ceil(static_cast<double>(side) * beta / f)) * factor;
    };
    h = grow(height), w = grow(width);
  }
  require<DataError>(h > 0 && w > 0, origin, ": ", width, " x ", height,
                     " pixels round to nothing in cells of ", factor, "; a min_pixels of at least ",
                     factor * factor, " prevents that");
  return {w, h};
}

QwenVision::QwenVision(const VisionOptions& options)
    : options_(options),
      image_table_(make_table(options, MediaKind::kImage)),
      video_table_(make_table(options, MediaKind::kVideo)) {
  const auto check = [](const PixelLimits& limits, std::string_view name) {
    require<UsageError>(limits.min_pixels >= 0 && limits.min_pixels <= limits.max_pixels, name,
                        "_min_pixels (", limits.min_pixels, ") must not be above ", name,
                        "_max_pixels (", limits.max_pixels, ")");
  };
  const bool pre = options.pre_resize != PreResize::kNone;
  check(pre ? options.image_pre : options.image, "data.image");
  check(pre ? options.video_pre : options.video, "data.video");
  require<UsageError>(options.patch > 0 && options.merge > 0 && options.temporal_patch > 0,
                      "vision: patch ", options.patch, ", merge ", options.merge,
                      ", temporal patch ", options.temporal_patch, "; all must be at least 1");
}

MediaPlan QwenVision::plan(ImageSize size, int64_t frames, MediaKind kind,
                           std::string_view origin) const {
  const bool image = kind == MediaKind::kImage;
  const auto steps = pre_resize_steps(size, options_.pre_resize,
                                      image ? options_.image_pre : options_.video_pre, origin);
  if (!steps.empty()) size = steps.back().to;
  const auto to = smart_resize(size, options_.patch * options_.merge,
                               image ? options_.image : options_.video, origin);
  const int64_t T = options_.temporal_patch;
  const Grid grid{image ? 1 : (frames + T - 1) / T, to.height / options_.patch,
                  to.width / options_.patch};
  return {.grid = grid, .tokens = tokens(grid)};
}

MediaPlan QwenVision::plan_image(ImageSize size, std::string_view origin) const {
  return plan(size, 1, MediaKind::kImage, origin);
}

MediaPlan QwenVision::plan_image(const std::filesystem::path& path) const {
  return plan_image(probe_image(path, options_.image_limits).size, path.string());
}

MediaPlan QwenVision::plan_video(const VideoSource& source) const {
  const auto origin = origin_of(source);
  if (source.file.empty()) {
    require<DataError>(!source.pictures.empty(), origin, ": a video needs at least one frame");
    const auto size = probe_image(source.pictures[0], options_.image_limits).size;
    auto plan =
        this->plan(size, static_cast<int64_t>(source.pictures.size()), MediaKind::kVideo, origin);
    // pictures carry no rate: transformers assumes one, the others take the wanted one
    const double fps = options_.sampling.rule == VideoSampling::kTransformers
                           ? kUnknownFps
                           : options_.sampling.fps;
    plan.seconds_per_grid = static_cast<double>(options_.temporal_patch) / fps;
    return plan;
  }
  const auto info = probe_video(source.file, options_.video_limits);
  auto choice = choose_frames(info, options_.sampling, options_.temporal_patch, origin);
  auto plan =
      this->plan(info.size, static_cast<int64_t>(choice.indices.size()), MediaKind::kVideo, origin);
  plan.seconds_per_grid = static_cast<double>(options_.temporal_patch) / choice.fps;
  plan.frames = std::move(choice.indices);
  return plan;
}

MediaPatches QwenVision::image(std::span<const std::byte> bytes, std::string_view origin) const {
  if (options_.pre_resize == PreResize::kNone) {
    return image_patches(decode_image(bytes, origin, alpha_rule(options_), options_.image_limits),
                         origin);
  }
  return image(decode_picture(bytes, origin, options_.image_limits), origin);
}

MediaPatches QwenVision::image(const std::filesystem::path& path) const {
  return image(codecs::map_picture(path).bytes(), path.string());
}

MediaPatches QwenVision::image(Picture picture, std::string_view origin) const {
  const auto steps =
      pre_resize_steps(picture.size, options_.pre_resize, options_.image_pre, origin);
  return image_patches(pre_resize(std::move(picture), steps, alpha_rule(options_)), origin);
}

MediaPatches QwenVision::image_patches(const RgbImage& image, std::string_view origin) const {
  if (!image.warning.empty()) log_warning("{}: {}", origin, image.warning);
  const auto to = smart_resize(image.size, options_.patch * options_.merge, options_.image, origin);
  const Grid grid{1, to.height / options_.patch, to.width / options_.patch};
  PatchWriter writer(options_, image_table_, MediaKind::kImage, image.size, grid);
  const RgbImage* step[] = {&image};
  writer.add_step(step);
  return writer.take();
}

MediaPatches QwenVision::video(const VideoSource& source) const {
  const auto origin = origin_of(source);
  const auto plan = plan_video(source);
  return collect_video(plan, origin, [&](const auto& add) {
    if (!source.file.empty()) {
      read_frames(
          source.file, plan.frames,
          [&](size_t, RgbImage frame) { add(to_picture(std::move(frame))); },
          options_.video_limits);
      return;
    }
    for (const auto& path : source.pictures) {
      const auto file = codecs::map_picture(path);
      add(decode_picture(file.bytes(), path.string(), options_.image_limits));
    }
  });
}

MediaPatches QwenVision::video(std::span<const RgbImage> frames, double fps,
                               std::string_view origin) const {
  require<DataError>(!frames.empty(), origin, ": a video needs at least one frame");
  auto plan =
      this->plan(frames[0].size, static_cast<int64_t>(frames.size()), MediaKind::kVideo, origin);
  plan.seconds_per_grid =
      static_cast<double>(options_.temporal_patch) / (fps > 0 ? fps : kUnknownFps);
  return collect_video(plan, origin, [&](const auto& add) {
    for (const auto& frame : frames) add(to_picture(frame));
  });
}

MediaPatches QwenVision::collect_video(
    const MediaPlan& plan, std::string_view origin,
    const std::function<void(const std::function<void(Picture)>&)>& frames) const {
  std::optional<PatchWriter> writer;
  std::optional<StepWriter> steps;
  ImageSize first;
  frames([&](Picture picture) {
    if (!writer) first = picture.size;
    require<DataError>(picture.size == first, origin, ": a frame is ", picture.size.width, " x ",
                       picture.size.height, " pixels, the first is ", first.width, " x ",
                       first.height);
    auto frame =
        pre_resize(std::move(picture),
                   pre_resize_steps(first, options_.pre_resize, options_.video_pre, origin),
                   alpha_rule(options_));
    if (!frame.warning.empty()) log_warning("{}: {}", origin, frame.warning);
    if (!writer) {
      writer.emplace(options_, video_table_, MediaKind::kVideo, frame.size, plan.grid);
      steps.emplace(*writer, options_.temporal_patch);
    }
    steps->add(std::move(frame));
  });
  steps->finish();
  auto media = writer->take();
  media.seconds_per_grid = plan.seconds_per_grid;
  return media;
}

}  // namespace triptych

#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/options.h"
#include "data/loader.h"
#include "data/media/qwen_vision.h"
#include "data/text/chat_template.h"

namespace triptych {

/// The first four are RecordFormat's, in its order.
enum class SourceFormat { kAuto, kLlava, kShareGpt, kMessages, kInternVl, kVideos };
constexpr std::array<std::string_view, 6> option_names(SourceFormat) {
  return {"auto", "llava", "sharegpt", "messages", "internvl", "videos"};
}

enum class VideoSamplingChoice { kAuto, kTransformers, kQwenVlUtils, kLlamaFactory, kInternVl };
constexpr std::array<std::string_view, 5> option_names(VideoSamplingChoice) {
  return {"auto", "transformers", "qwen_vl_utils", "llamafactory", "internvl"};
}

constexpr std::array<std::string_view, 3> option_names(Learn) {
  return {"assistant", "last", "all"};
}
constexpr std::array<std::string_view, 2> option_names(LabelTokens) {
  return {"separate", "whole"};
}
constexpr std::array<std::string_view, 2> option_names(TooLong) { return {"bad", "cut"}; }
constexpr std::array<std::string_view, 2> option_names(OnBadSample) { return {"stop", "skip"}; }
constexpr std::array<std::string_view, 3> option_names(PreResize) {
  return {"none", "llamafactory", "mindspeed"};
}
constexpr std::array<std::string_view, 3> option_names(ResizeChoice) {
  return {"auto", "pillow", "torch"};
}
constexpr std::array<std::string_view, 3> option_names(AlphaChoice) {
  return {"auto", "white", "drop"};
}

/// One [[data.train]] or [[data.validation]].
struct DataSourceOptions {
  std::filesystem::path path;
  SourceFormat format = SourceFormat::kAuto;
  std::filesystem::path media;
  double weight = 1.0, repeat = 1.0;

  static constexpr auto fields() {
    using O = DataSourceOptions;
    return std::tuple(
        field("path", &O::path, "One file, an InternVL meta file, or a folder of videos."),
        field("format", &O::format, "How the records are written; auto looks at their content."),
        field("media", &O::media,
              "Folder that media paths in the file are relative to; empty: the file's own."),
        field("weight", &O::weight, above(0), "Share when several sources are mixed."),
        field("repeat", &O::repeat, above(0), "How often an epoch goes through this source."));
  }
};

struct DataOptions {
  int64_t max_length = 4096;
  TooLong too_long = TooLong::kBad;
  Learn learn = Learn::kAssistant;
  LabelTokens label_tokens = LabelTokens::kSeparate;
  std::string chat_template = "auto";
  bool packing = true, shuffle = true;
  std::optional<int64_t> image_min_pixels, image_max_pixels;
  PreResize image_pre_resize = PreResize::kNone;
  ResizeChoice image_resize = ResizeChoice::kAuto;
  AlphaChoice image_alpha = AlphaChoice::kAuto;
  int64_t image_tiles = 6;
  VideoSamplingChoice video_sampling = VideoSamplingChoice::kAuto;
  double video_fps = 2.0;
  int64_t video_min_frames = 4, video_max_frames = 768;
  std::optional<int64_t> video_min_pixels, video_max_pixels;
  int64_t workers = 2;
  OnBadSample on_bad_sample = OnBadSample::kStop;
  std::vector<DataSourceOptions> train, validation;

  static constexpr auto fields() {
    using O = DataOptions;
    return std::tuple(
        field("max_length", &O::max_length, at_least(1),
              "Tokens of a row, after image and video placeholders are expanded."),
        field("too_long", &O::too_long,
              "A longer sample: bad (on_bad_sample decides), or cut (text only, never inside a "
              "picture)."),
        field("learn", &O::learn,
              "What carries loss: every assistant turn, the last one, or all (prompts too)."),
        field("label_tokens", &O::label_tokens,
              "Turns tokenized one by one (separate), or the rendered string, then split (whole)."),
        field("template", &O::chat_template,
              "Chat template: auto (the model folder's) or a known name, e.g. qwen2_5_vl."),
        field("packing", &O::packing,
              "Several samples a row without padding; false: one a row, padded to the longest of "
              "the micro-batch."),
        field("shuffle", &O::shuffle, "A new order every epoch, fixed by the seed."),
        field("image_min_pixels", &O::image_min_pixels, at_least(1),
              "Smallest picture after resizing; not set: the model folder's."),
        field("image_max_pixels", &O::image_max_pixels, at_least(1),
              "Largest picture after resizing; not set: the model folder's."),
        field("image_pre_resize", &O::image_pre_resize,
              "What other suites do to a picture before the processor."),
        field("image_resize", &O::image_resize,
              "Arithmetic of the resize: auto (the model's processor), pillow, or torch (int16 "
              "weights)."),
        field("image_alpha", &O::image_alpha,
              "Transparent pictures: auto, on white, or the alpha channel dropped."),
        field("image_tiles", &O::image_tiles, at_least(1),
              "InternVL2: most tiles a picture, thumbnail not counted."),
        field("video_sampling", &O::video_sampling, "Which frames of a video are taken."),
        field("video_fps", &O::video_fps, above(0), "Frames taken per second of video."),
        field("video_min_frames", &O::video_min_frames, at_least(1), "Fewest frames of a video."),
        field("video_max_frames", &O::video_max_frames, at_least(1), "Most frames of a video."),
        field("video_min_pixels", &O::video_min_pixels, at_least(1),
              "Smallest frame after resizing; not set: the model folder's."),
        field("video_max_pixels", &O::video_max_pixels, at_least(1),
              "Largest frame after resizing; not set: the model folder's."),
        field("workers", &O::workers, between(1, 1024), "Decoding threads of each process."),
        field("on_bad_sample", &O::on_bad_sample,
              "A sample that cannot be used: stop, or skip it (counted and listed)."),
        field("train", &O::train, "A source of training samples."),
        field("validation", &O::validation, "A source of validation samples."));
  }
};

}  // namespace triptych

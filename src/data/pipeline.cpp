#include "data/pipeline.h"

#include <utility>

#include "base/error.h"

namespace triptych {
namespace {

RecordFormat record_format(SourceFormat format, const std::filesystem::path& path) {
  switch (format) {
    case SourceFormat::kAuto:
      return RecordFormat::kAuto;
    case SourceFormat::kLlava:
      return RecordFormat::kLlava;
    case SourceFormat::kShareGpt:
      return RecordFormat::kShareGpt;
    case SourceFormat::kMessages:
      return RecordFormat::kMessages;
    default:
      fail<UsageError>("data: format \"", option_names(format)[static_cast<size_t>(format)],
                       "\" of ", path.string(),
                       " is not for this model; allowed: auto, llava, sharegpt, messages");
  }
}

VideoSampling sampling_rule(const DataOptions& options) {
  switch (options.video_sampling) {
    case VideoSamplingChoice::kQwenVlUtils:
      return VideoSampling::kQwenVlUtils;
    case VideoSamplingChoice::kLlamaFactory:
      return VideoSampling::kLlamaFactory;
    case VideoSamplingChoice::kInternVl:
      fail<UsageError>(
          "data.video_sampling = \"internvl\" is not for this model; allowed: auto, "
          "transformers, qwen_vl_utils, llamafactory");
    case VideoSamplingChoice::kTransformers:
      return VideoSampling::kTransformers;
    case VideoSamplingChoice::kAuto:
      break;
  }
  // The suites whose pre-resize is asked for choose frames by their own rule, too.
  return options.image_pre_resize == PreResize::kNone ? VideoSampling::kTransformers
                                                      : VideoSampling::kLlamaFactory;
}

}  // namespace

Dataset open_dataset(const std::vector<DataSourceOptions>& sources,
                     const std::filesystem::path& run_folder) {
  std::vector<RecordSource> records;
  for (const auto& source : sources) {
    records.push_back({.path = source.path,
                       .format = record_format(source.format, source.path),
                       .names = {},
                       .media = source.media,
                       .weight = source.weight,
                       .repeat = source.repeat});
  }
  return Dataset(std::move(records), run_folder);
}

VisionOverrides vision_overrides(const DataOptions& options) {
  return {.image_min_pixels = options.image_min_pixels,
          .image_max_pixels = options.image_max_pixels,
          .video_min_pixels = options.video_min_pixels,
          .video_max_pixels = options.video_max_pixels,
          .pre_resize = options.image_pre_resize,
          .resize = options.image_resize,
          .alpha = options.image_alpha,
          .sampling = {.rule = sampling_rule(options),
                       .fps = options.video_fps,
                       .min_frames = options.video_min_frames,
                       .max_frames = options.video_max_frames}};
}

EncodeOptions encode_options(const DataOptions& options) {
  return {.render = {.learn = options.learn},
          .label_tokens = options.label_tokens,
          .max_length = options.max_length,
          .too_long = options.too_long};
}

std::unique_ptr<QwenProcessor> make_processor(const DataOptions& options,
                                              const std::filesystem::path& model_folder) {
  const auto& chat = select_chat_template(options.chat_template, model_folder, "qwen2_5_vl");
  return std::make_unique<QwenProcessor>(
      Tokenizer::from_folder(model_folder), chat,
      apply(read_vision_options(model_folder), vision_overrides(options)), encode_options(options));
}

LoaderOptions loader_options(const DataOptions& options) {
  return {.max_length = options.max_length,
          .packing = options.packing,
          .shuffle = options.shuffle,
          .on_bad_sample = options.on_bad_sample,
          .workers = options.workers};
}

LoaderOptions validation_options(const DataOptions& options) {
  auto made = loader_options(options);
  made.shuffle = false;
  made.one_pass = true;
  return made;
}

}  // namespace triptych

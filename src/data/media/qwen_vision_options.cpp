// VisionOptions from a model folder and from the run file.

#include <utility>

#include "base/error.h"
#include "data/media/qwen_vision.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

int64_t whole_number(const Json& value, std::string_view key, std::string_view origin) {
  require<DataError>(value.is_number(), origin, ": '", key, "' must be a number, got ",
                     dump_json(value));
  const double number = value.get<double>();
  const auto rounded = static_cast<int64_t>(number);
  require<DataError>(number > 0 && number == static_cast<double>(rounded), origin, ": '", key,
                     "' must be a whole number above 0, got ", dump_json(value));
  return rounded;
}

void read_number(const Json& object, const char* key, std::string_view origin, int64_t& into) {
  const auto found = object.find(key);
  if (found != object.end() && !found->is_null()) into = whole_number(*found, key, origin);
}

/// Areas, in spite of the names in `size`.
void read_limits(const Json& config, std::string_view origin, PixelLimits& limits) {
  if (const auto size = config.find("size"); size != config.end() && size->is_object()) {
    read_number(*size, "shortest_edge", origin, limits.min_pixels);
    read_number(*size, "longest_edge", origin, limits.max_pixels);
    read_number(*size, "min_pixels", origin, limits.min_pixels);
    read_number(*size, "max_pixels", origin, limits.max_pixels);
  }
  read_number(config, "min_pixels", origin, limits.min_pixels);
  read_number(config, "max_pixels", origin, limits.max_pixels);
  require<DataError>(limits.min_pixels <= limits.max_pixels, origin, ": min_pixels (",
                     limits.min_pixels, ") is above max_pixels (", limits.max_pixels, ")");
}

void read_triple(const Json& config, const char* key, std::string_view origin,
                 std::array<double, 3>& into) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return;
  require<DataError>(found->is_array() && found->size() == 3 && (*found)[0].is_number() &&
                         (*found)[1].is_number() && (*found)[2].is_number(),
                     origin, ": '", key, "' must be three numbers, got ", dump_json(*found));
  for (size_t c = 0; c < 3; ++c) into[c] = (*found)[c].get<double>();
}

/// Steps that the reference can leave out and we cannot.
void check_steps(const Json& config, std::string_view origin) {
  for (const char* key : {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) {
    const auto found = config.find(key);
    require<DataError>(found == config.end() || !found->is_boolean() || found->get<bool>(), origin,
                       ": '", key, "' is false; pictures are always resized, rescaled, normalised ",
                       "and made RGB here");
  }
  constexpr int kBicubic = 3;
  const auto resample = config.find("resample");
  require<DataError>(resample == config.end() || *resample == kBicubic, origin, ": 'resample' is ",
                     resample == config.end() ? "" : dump_json(*resample),
                     "; only 3 (bicubic) is known for this family");
}

void check_processor(const Json& config, std::string_view origin, VisionOptions& options) {
  const auto found = config.find("image_processor_type");
  if (found == config.end() || !found->is_string()) return;
  const auto name = found->get<std::string>();
  options.fast_processor = name.ends_with("Fast");
  require<DataError>(name.starts_with("Qwen2VLImageProcessor") ||
                         name.starts_with("Qwen2_5_VLImageProcessor"),  // older fine-tunes
                     origin, ": image_processor_type '", name,
                     "' is not one of the Qwen2VLImageProcessor family");
}

/// Patches must be those that the model was made for; without config.json nobody can tell.
void check_against_model(const fs::path& model_folder, std::string_view origin,
                         const VisionOptions& options) {
  const auto path = model_folder / "config.json";
  if (!fs::exists(path)) return;
  const Json config = read_json(path);
  const auto vision = config.is_object() ? config.find("vision_config") : config.end();
  if (vision == config.end() || !vision->is_object()) return;
  const auto check = [&](const char* ours, int64_t value, const char* theirs) {
    const auto found = vision->find(theirs);
    require<DataError>(found == vision->end() || !found->is_number_integer() || *found == value,
                       origin, ": ", ours, " is ", value, ", vision_config.", theirs, " of ",
                       path.string(), " is ", found == vision->end() ? "" : dump_json(*found),
                       "; are the two files of one model?");
  };
  check("patch_size", options.patch, "patch_size");
  check("merge_size", options.merge, "spatial_merge_size");
  check("temporal_patch_size", options.temporal_patch, "temporal_patch_size");
}

}  // namespace

VisionOptions read_vision_options(const fs::path& model_folder) {
  const auto path = model_folder / "preprocessor_config.json";
  const auto origin = path.string();
  const Json config = read_json(path);
  require<DataError>(config.is_object(), origin, ": must hold an object");
  VisionOptions options;
  check_processor(config, origin, options);
  check_steps(config, origin);
  read_limits(config, origin, options.image);
  read_number(config, "patch_size", origin, options.patch);
  read_number(config, "merge_size", origin, options.merge);
  read_number(config, "temporal_patch_size", origin, options.temporal_patch);
  read_triple(config, "image_mean", origin, options.mean);
  read_triple(config, "image_std", origin, options.std);
  for (const double std : options.std)
    require<DataError>(std > 0, origin, ": 'image_std' must be above 0, got ", std);
  check_against_model(model_folder, origin, options);
  if (const auto scale = config.find("rescale_factor"); scale != config.end()) {
    require<DataError>(scale->is_number() && scale->get<double>() > 0, origin,
                       ": 'rescale_factor' must be above 0, got ", dump_json(*scale));
    options.rescale = scale->get<double>();
  }

  options.video = options.image;
  const auto video_path = model_folder / "video_preprocessor_config.json";
  if (fs::exists(video_path)) {
    const Json video = read_json(video_path);
    require<DataError>(video.is_object(), video_path.string(), ": must hold an object");
    check_steps(video, video_path.string());
    read_limits(video, video_path.string(), options.video);
  }
  return options;
}

VisionOptions apply(VisionOptions options, const VisionOverrides& overrides) {
  options.pre_resize = overrides.pre_resize;
  options.resize = overrides.resize;
  options.alpha = overrides.alpha;
  options.sampling = overrides.sampling;
  const bool pre = overrides.pre_resize != PreResize::kNone;
  auto& image = pre ? options.image_pre : options.image;
  auto& video = pre ? options.video_pre : options.video;
  image.min_pixels = overrides.image_min_pixels.value_or(image.min_pixels);
  image.max_pixels = overrides.image_max_pixels.value_or(image.max_pixels);
  video.min_pixels = overrides.video_min_pixels.value_or(video.min_pixels);
  video.max_pixels = overrides.video_max_pixels.value_or(video.max_pixels);
  return options;
}

}  // namespace triptych

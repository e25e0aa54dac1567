#include "models/qwen2_5_vl/options.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/format.h"

namespace triptych::qwen2_5_vl {

namespace {

// Far above every published model. Products of sizes stay in range, and a list of layers can be
// made.
constexpr int64_t kLargestSize = int64_t{1} << 28, kMostLayers = 1024;

/// Reads keys of one JSON object; messages name file and path of the key.
class Reader {
 public:
  Reader(const Json& object, std::string place) : object_(object), place_(std::move(place)) {}

  int64_t size(const char* key, std::optional<int64_t> fallback = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return missing(key, fallback);
    require(value->is_number_integer() && value->get<int64_t>() >= 0 &&
                value->get<int64_t>() <= kLargestSize,
            place_, ": ", key, " = ", value->dump(), " must be a whole number from 0 to ",
            kLargestSize);
    return value->get<int64_t>();
  }

  double number(const char* key, std::optional<double> fallback = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return missing(key, fallback);
    require(value->is_number(), place_, ": ", key, " = ", value->dump(), " must be a number");
    return value->get<double>();
  }

  std::vector<int64_t> sizes(const char* key,
                             std::optional<std::vector<int64_t>> fallback = {}) const {
    const Json* value = find(key);
    if (value == nullptr) return missing(key, fallback);
    require(value->is_array() && std::all_of(value->begin(), value->end(),
                                             [](const Json& v) { return v.is_number_integer(); }),
            place_, ": ", key, " = ", value->dump(), " must be a list of whole numbers");
    return value->get<std::vector<int64_t>>();
  }

  bool flag(const char* key) const {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() && value->get<bool>();
  }

  void expect_text(const char* key, std::string_view expected) const {
    const Json* value = find(key);
    if (value == nullptr) return;
    require(value->is_string() && value->get<std::string>() == expected, place_, ": ", key, " = ",
            value->dump(), " is not supported; only \"", expected, "\" is");
  }

 private:
  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  template <class T>
  T missing(const char* key, const std::optional<T>& fallback) const {
    require(fallback.has_value(), place_, ": ", key,
            " is missing, and the reference's default differs from every published model");
    return *fallback;
  }

  const Json& object_;
  std::string place_;
};

VisionOptions parse_vision(const Json& config, const std::string& place) {
  const Reader read(config, place);
  VisionOptions vision;
  vision.depth = read.size("depth", 32);
  vision.hidden_size = read.size("hidden_size");
  vision.intermediate_size = read.size("intermediate_size", 3420);
  vision.num_heads = read.size("num_heads", 16);
  vision.in_channels = read.size("in_channels", read.size("in_chans", 3));
  vision.patch_size = read.size("patch_size", 14);
  vision.temporal_patch_size = read.size("temporal_patch_size", 2);
  vision.spatial_merge_size = read.size("spatial_merge_size", 2);
  vision.window_size = read.size("window_size", 112);
  vision.out_hidden_size = read.size("out_hidden_size");
  vision.tokens_per_second = read.number("tokens_per_second", 2.0);
  vision.fullatt_block_indexes =
      read.sizes("fullatt_block_indexes", std::vector<int64_t>{7, 15, 23, 31});
  read.expect_text("hidden_act", "silu");
  return vision;
}

TextOptions parse_text(const Json& config, const std::string& place) {
  const Reader read(config, place);
  TextOptions text;
  text.vocab_size = read.size("vocab_size");
  text.hidden_size = read.size("hidden_size");
  text.intermediate_size = read.size("intermediate_size");
  text.num_hidden_layers = read.size("num_hidden_layers");
  text.num_attention_heads = read.size("num_attention_heads");
  text.num_key_value_heads = read.size("num_key_value_heads");
  text.rms_norm_eps = read.number("rms_norm_eps");
  text.initializer_range = read.number("initializer_range", 0.02);
  read.expect_text("hidden_act", "silu");
  require(!read.flag("use_sliding_window"), place,
          ": use_sliding_window is true, but no published Qwen2.5-VL slides its window");

  // transformers >= 4.52 moved rope_theta and rope_scaling into rope_parameters.
  const Json* rope = nullptr;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const auto it = config.find(key);
    if (rope == nullptr && it != config.end() && it->is_object()) rope = &*it;
  }
  text.rope_theta = read.number("rope_theta", 1e6);
  if (rope != nullptr) {
    const Reader scaling(*rope, place + ": rope_parameters");
    text.rope_theta = scaling.number("rope_theta", text.rope_theta);
    text.mrope_section = scaling.sizes("mrope_section", text.mrope_section);
    for (const char* key : {"type", "rope_type"}) {
      const auto it = rope->find(key);
      if (it == rope->end()) continue;
      require(it->is_string() && (*it == "mrope" || *it == "default"), place, ": rope ", key, " = ",
              it->dump(), " is not supported; \"mrope\" and \"default\" are");
    }
  }
  return text;
}

void check_sizes(const Options& o, std::string_view origin) {
  const auto& v = o.vision;
  const auto& t = o.text;
  Problems problems;
  const auto positive = [&](int64_t value, const char* name) {
    problems.check(value > 0, origin, ": ", name, " must be at least 1, got ", value);
  };
  const auto layers = [&](int64_t count, const char* name) {
    problems.check(count >= 1 && count <= kMostLayers, origin, ": ", name, " must be from 1 to ",
                   kMostLayers, ", got ", count);
  };
  layers(v.depth, "vision_config.depth");
  positive(v.hidden_size, "vision_config.hidden_size");
  positive(v.intermediate_size, "vision_config.intermediate_size");
  positive(v.num_heads, "vision_config.num_heads");
  positive(v.patch_size, "vision_config.patch_size");
  positive(v.temporal_patch_size, "vision_config.temporal_patch_size");
  positive(v.spatial_merge_size, "vision_config.spatial_merge_size");
  positive(v.window_size, "vision_config.window_size");
  positive(t.vocab_size, "vocab_size");
  positive(t.hidden_size, "hidden_size");
  positive(t.intermediate_size, "intermediate_size");
  layers(t.num_hidden_layers, "num_hidden_layers");
  positive(t.num_attention_heads, "num_attention_heads");
  positive(t.num_key_value_heads, "num_key_value_heads");
  if (!problems.empty()) fail(problems.messages().front());

  require(v.hidden_size % v.num_heads == 0 && v.head_dim() % 4 == 0, origin,
          ": vision hidden_size ", v.hidden_size, " must be num_heads ", v.num_heads,
          " times a multiple of 4");
  require(v.window_size % (v.patch_size * v.spatial_merge_size) == 0, origin, ": window_size ",
          v.window_size, " must be a multiple of patch_size x spatial_merge_size = ",
          v.patch_size * v.spatial_merge_size);
  require(v.out_hidden_size == t.hidden_size, origin, ": vision_config.out_hidden_size ",
          v.out_hidden_size, " differs from the text model's hidden_size ", t.hidden_size);
  require(t.hidden_size % t.num_attention_heads == 0, origin, ": hidden_size ", t.hidden_size,
          " must be a multiple of num_attention_heads ", t.num_attention_heads);
  require(t.num_attention_heads % t.num_key_value_heads == 0, origin, ": num_attention_heads ",
          t.num_attention_heads, " must be a multiple of num_key_value_heads ",
          t.num_key_value_heads);
  int64_t sections = 0;
  for (const auto section : t.mrope_section) sections += section;
  require(t.mrope_section.size() == 3 && 2 * sections == t.head_dim(), origin,
          ": the three mrope sections add up to ", sections, ", half the head dim is ",
          t.head_dim() / 2);
}

}  // namespace

bool VisionOptions::full_attention(int64_t block) const {
  return std::find(fullatt_block_indexes.begin(), fullatt_block_indexes.end(), block) !=
         fullatt_block_indexes.end();
}

Options parse_config(const Json& config, std::string_view origin) {
  const std::string place(origin);
  require(config.is_object(), place, ": must be a JSON object");
  const auto type = config.find("model_type");
  require(type != config.end() && *type == "qwen2_5_vl", place, ": model_type is ",
          type == config.end() ? std::string("missing") : type->dump(),
          ", expected \"qwen2_5_vl\"");
  const auto vision = config.find("vision_config");
  require(vision != config.end() && vision->is_object(), place, ": vision_config is missing");

  const auto nested = config.find("text_config");
  const bool is_nested = nested != config.end() && nested->is_object();
  const Json& text = is_nested ? *nested : config;

  Options options;
  options.vision = parse_vision(*vision, place + ": vision_config");
  options.text = parse_text(text, is_nested ? place + ": text_config" : place);
  options.text.tie_word_embeddings = Reader(config, place).flag("tie_word_embeddings") ||
                                     Reader(text, place).flag("tie_word_embeddings");

  const Reader top(config, place);
  const Reader inner(text, place);
  auto& ids = options.ids;
  ids.image = top.size("image_token_id", ids.image);
  ids.video = top.size("video_token_id", ids.video);
  ids.vision_start = top.size("vision_start_token_id", ids.vision_start);
  ids.vision_end = top.size("vision_end_token_id", ids.vision_end);
  check_sizes(options, origin);
  return options;
}

Options preset(std::string_view name) {
  struct Size {
    const char* name;
    int64_t layers, hidden, intermediate, heads, key_value_heads, vocab;
    bool tied;
    int64_t vision_intermediate;
  };
  static constexpr Size kSizes[] = {
      {"qwen2_5_vl_3b", 36, 2048, 11008, 16, 2, 151936, true, 3420},
      {"qwen2_5_vl_7b", 28, 3584, 18944, 28, 4, 152064, false, 3420},
      {"qwen2_5_vl_32b", 64, 5120, 27648, 40, 8, 152064, false, 3456},
      {"qwen2_5_vl_72b", 80, 8192, 29568, 64, 8, 152064, false, 3456},
  };
  for (const auto& size : kSizes) {
    if (name != size.name) continue;
    Options o;
    o.vision.hidden_size = 1280;
    o.vision.intermediate_size = size.vision_intermediate;
    o.vision.out_hidden_size = size.hidden;
    o.text.vocab_size = size.vocab;
    o.text.hidden_size = size.hidden;
    o.text.intermediate_size = size.intermediate;
    o.text.num_hidden_layers = size.layers;
    o.text.num_attention_heads = size.heads;
    o.text.num_key_value_heads = size.key_value_heads;
    o.text.rms_norm_eps = 1e-6;
    o.text.tie_word_embeddings = size.tied;
    return o;
  }
  std::string known;
  for (const auto& other : preset_names()) known += (known.empty() ? "" : ", ") + other;
  fail<UsageError>("model.preset = \"", name, "\" is not known; known: ", known);
}

std::vector<std::string> preset_names() {
  return {"qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen2_5_vl_32b", "qwen2_5_vl_72b"};
}

namespace {
/// transformers 5 refuses 2.0 where it declares an integer.
Json whole_or_real(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}
}  // namespace

Json make_config(const Options& o) {
  const auto& v = o.vision;
  const auto& t = o.text;
  Json vision = {{"model_type", "qwen2_5_vl"},
                 {"depth", v.depth},
                 {"hidden_act", "silu"},
                 {"hidden_size", v.hidden_size},
                 {"intermediate_size", v.intermediate_size},
                 {"num_heads", v.num_heads},
                 {"in_chans", v.in_channels},
                 {"out_hidden_size", v.out_hidden_size},
                 {"patch_size", v.patch_size},
                 {"spatial_merge_size", v.spatial_merge_size},
                 {"spatial_patch_size", v.patch_size},
                 {"window_size", v.window_size},
                 {"fullatt_block_indexes", v.fullatt_block_indexes},
                 {"tokens_per_second", whole_or_real(v.tokens_per_second)},
                 {"temporal_patch_size", v.temporal_patch_size}};
  return {{"architectures", {"Qwen2_5_VLForConditionalGeneration"}},
          {"model_type", "qwen2_5_vl"},
          {"attention_dropout", 0.0},
          {"bos_token_id", o.ids.end_of_text},
          {"eos_token_id", o.ids.end_of_turn},
          {"vision_start_token_id", o.ids.vision_start},
          {"vision_end_token_id", o.ids.vision_end},
          {"image_token_id", o.ids.image},
          {"video_token_id", o.ids.video},
          {"hidden_act", "silu"},
          {"hidden_size", t.hidden_size},
          {"initializer_range", t.initializer_range},
          {"intermediate_size", t.intermediate_size},
          {"max_position_embeddings", 128000},
          {"max_window_layers", t.num_hidden_layers},
          {"num_attention_heads", t.num_attention_heads},
          {"num_hidden_layers", t.num_hidden_layers},
          {"num_key_value_heads", t.num_key_value_heads},
          {"rms_norm_eps", t.rms_norm_eps},
          {"rope_theta", t.rope_theta},
          {"rope_scaling", {{"type", "mrope"}, {"mrope_section", t.mrope_section}}},
          {"sliding_window", 32768},
          {"tie_word_embeddings", t.tie_word_embeddings},
          {"torch_dtype", "bfloat16"},
          {"use_cache", true},
          {"use_sliding_window", false},
          {"vision_config", vision},
          {"vocab_size", t.vocab_size}};
}

std::vector<std::string> differences(const Options& a, const Options& b) {
  std::vector<std::string> found;
  const auto compare = [&](const char* name, const auto& left, const auto& right) {
    if (left == right) return;
    found.push_back(fmt::format("{}: {} against {}", name, left, right));
  };
  compare("vision_config.depth", a.vision.depth, b.vision.depth);
  compare("vision_config.hidden_size", a.vision.hidden_size, b.vision.hidden_size);
  compare("vision_config.intermediate_size", a.vision.intermediate_size,
          b.vision.intermediate_size);
  compare("vision_config.num_heads", a.vision.num_heads, b.vision.num_heads);
  compare("vision_config.out_hidden_size", a.vision.out_hidden_size, b.vision.out_hidden_size);
  compare("vocab_size", a.text.vocab_size, b.text.vocab_size);
  compare("hidden_size", a.text.hidden_size, b.text.hidden_size);
  compare("intermediate_size", a.text.intermediate_size, b.text.intermediate_size);
  compare("num_hidden_layers", a.text.num_hidden_layers, b.text.num_hidden_layers);
  compare("num_attention_heads", a.text.num_attention_heads, b.text.num_attention_heads);
  compare("num_key_value_heads", a.text.num_key_value_heads, b.text.num_key_value_heads);
  compare("rms_norm_eps", a.text.rms_norm_eps, b.text.rms_norm_eps);
  compare("rope_theta", a.text.rope_theta, b.text.rope_theta);
  compare("tie_word_embeddings", a.text.tie_word_embeddings, b.text.tie_word_embeddings);
  return found;
}

}  // namespace triptych::qwen2_5_vl

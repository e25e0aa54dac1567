#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <utility>

#include "base/error.h"
#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/model.h"
#include "parallel/layout_rules.h"
#include "parallel/options.h"
#include "train/family.h"

namespace triptych {

namespace {

namespace qwen = qwen2_5_vl;
namespace field = qwen2_5_vl::field;

qwen::MediaGrid to_grid(const MediaPatches& medium) {
  return {.t = medium.grid.t,
          .h = medium.grid.h,
          .w = medium.grid.w,
          .video = medium.kind == MediaKind::kVideo,
          .seconds_per_grid = medium.seconds_per_grid};
}

qwen::SampleView to_view(const Sample& sample, double weight, bool with_labels) {
  qwen::SampleView view{.index = sample.index, .tokens = sample.tokens, .loss_weight = weight};
  if (with_labels) view.labels = sample.labels;
  for (const auto& medium : sample.media)
    view.media.push_back({.grid = to_grid(medium), .rows = medium.rows});
  return view;
}

qwen::FlowSettings to_settings(const FlowRequest& request) {
  qwen::FlowSettings settings{.device = request.device,
                              .dtype = request.dtype,
                              .all_logits = request.all_logits,
                              .last_logits = request.last_logits,
                              .pixels = request.with_pixels,
                              .vision = request.with_vision};
  if (request.dropout) settings.dropout = {.seed = request.seed, .step = request.step};
  settings.groups = request.groups;
  return settings;
}

class Qwen2_5_VL : public Family {
 public:
  explicit Qwen2_5_VL(qwen::Options options) : options_(std::move(options)) {}

  std::string name() const override { return "qwen2_5_vl"; }
  Model build(at::ScalarType dtype, const ModelGroups& groups) const override {
    return qwen::build(options_, dtype, groups);
  }

  int64_t query_heads() const override { return options_.text.num_attention_heads; }

  void validate_layout(const ParallelOptions& parallel, Problems& problems) const override {
    const auto& v = options_.vision;
    validate_tensor({.name = "vision",
                     .heads = v.num_heads,
                     .key_value_heads = v.num_heads,
                     .mlp = v.intermediate_size},
                    parallel.tensor, problems);
    validate_tensor(text_sizes(), parallel.tensor, problems);
    validate_context(text_sizes(), parallel, problems);
  }
  std::string layout_advice(const ParallelOptions& parallel) const override {
    return context_advice(text_sizes(), parallel);
  }

  Flow make_flow(const MicroBatch& batch, std::span<const double> weights,
                 const FlowRequest& request) const override {
    std::vector<qwen::SampleView> views;
    for (const auto& row : batch.rows) {
      for (const auto& sample : row.samples) {
        const double weight = views.size() < weights.size() ? weights[views.size()] : 1.0;
        views.push_back(to_view(sample, weight, request.with_labels));
      }
    }
    return qwen::make_flow(options_, views, to_settings(request));
  }

  std::string_view loss_field() const override { return field::kLoss; }
  std::string_view token_losses_field() const override { return field::kTokenLosses; }
  std::string_view logits_field() const override { return field::kLogits; }

  std::vector<std::string> travelling_fields() const override {
    return {field::kVisionHidden, field::kFeatures, field::kHidden};
  }

  bool is_block(const Layer& layer) const override {
    return layer.name().starts_with("visual.blocks.") || layer.name().starts_with("model.layers.");
  }

  std::string canonical_name(std::string_view stored) const override {
    return qwen::canonical_name(stored);
  }
  std::string module_path(std::string_view canonical) const override {
    return qwen::module_path(canonical);
  }
  Json config() const override { return qwen::make_config(options_); }

  FlowSize flow_size(const MicroBatch& batch) const override {
    FlowSize size;
    double length_squares = 0, frame_squares = 0;
    for (const auto& row : batch.rows) {
      for (const auto& sample : row.samples) {
        const auto length = static_cast<double>(sample.tokens.size());
        size.tokens += static_cast<int64_t>(sample.tokens.size());
        size.label_tokens += qwen::count_labels(sample.labels);
        length_squares += length * length;
        for (const auto& medium : sample.media) {
          const auto frame = static_cast<double>(medium.grid.h * medium.grid.w);
          size.patches += medium.grid.patches();
          frame_squares += static_cast<double>(medium.grid.t) * frame * frame;
        }
      }
    }
    if (size.tokens > 0)
      size.mean_square_length = length_squares / static_cast<double>(size.tokens);
    if (size.patches > 0)
      size.mean_square_frame_patches = frame_squares / static_cast<double>(size.patches);
    return size;
  }

  FlowSize typical_size(int64_t tokens) const override {
    const int64_t side = 32;  // patches: a picture of 448 x 448
    return {.tokens = tokens,
            .label_tokens = tokens / 4,
            .patches = tokens / 2 * options_.vision.cell_patches(),
            .mean_square_length = static_cast<double>(tokens),
            .mean_square_frame_patches = static_cast<double>(side * side)};
  }

  Row typical_row(int64_t tokens) const override {
    const auto& ids = options_.ids;
    const int64_t cells_of_picture = 256, merge = options_.vision.spatial_merge_size;
    Sample sample;
    for (int64_t left = tokens / 2 - 2; left > 0; left -= cells_of_picture + 2) {
      const int64_t cells = std::min(left, cells_of_picture);
      const int64_t side = cells == cells_of_picture ? 16 : 1;
      sample.media.push_back(
          {.grid = {.t = 1, .h = side * merge, .w = cells / side * merge}, .rows = {}});
      sample.tokens.push_back(static_cast<int32_t>(ids.vision_start));
      sample.tokens.insert(sample.tokens.end(), static_cast<size_t>(cells),
                           static_cast<int32_t>(ids.image));
      sample.tokens.push_back(static_cast<int32_t>(ids.vision_end));
    }
    for (int64_t word = 0; static_cast<int64_t>(sample.tokens.size()) < tokens; ++word) {
      const int64_t id = word % options_.text.vocab_size;
      if (id != ids.image && id != ids.video && id != ids.vision_start)
        sample.tokens.push_back(static_cast<int32_t>(id));
    }
    sample.labels.assign(sample.tokens.size(), kIgnoreLabel);
    const auto first = sample.labels.size() - static_cast<size_t>(tokens / 4);
    for (size_t i = first; i < sample.labels.size(); ++i) sample.labels[i] = sample.tokens[i];
    return {.samples = {std::move(sample)}};
  }

  DecodeState start_decoding(int64_t capacity, const FlowRequest& request) const override {
    const auto& text = options_.text;
    const std::vector<int64_t> shape{text.num_hidden_layers, capacity, text.num_key_value_heads,
                                     text.head_dim()};
    const auto options = at::TensorOptions().dtype(request.dtype).device(request.device);
    return {.keys = at::empty(shape, options), .values = at::empty(shape, options)};
  }

  Flow prefill_flow(const Sample& prompt, DecodeState& state,
                    const FlowRequest& request) const override {
    auto settings = to_settings(request);
    settings.last_logits = true;
    const auto view = to_view(prompt, 1, false);
    std::vector<qwen::MediaGrid> grids;
    for (const auto& medium : prompt.media) grids.push_back(to_grid(medium));
    state.delta = qwen::text_positions(prompt.tokens, grids, options_).delta;
    auto flow = qwen::make_flow(options_, std::span(&view, 1), settings);
    add_cache(flow, state);
    return flow;
  }

  Flow decode_flow(int32_t token, const DecodeState& state,
                   const FlowRequest& request) const override {
    auto flow =
        qwen::next_token_flow(options_, token, state.length + state.delta, to_settings(request));
    add_cache(flow, state);
    return flow;
  }

 private:
  LayerSizes text_sizes() const {
    const auto& t = options_.text;
    return {.name = "text",
            .heads = t.num_attention_heads,
            .key_value_heads = t.num_key_value_heads,
            .mlp = t.intermediate_size};
  }
  static void add_cache(Flow& flow, const DecodeState& state) {
    flow.set(field::kCacheLength, at::tensor(state.length, at::kLong));
    flow.set(field::kCacheKeys, state.keys);
    flow.set(field::kCacheValues, state.values);
  }

  qwen::Options options_;
};

qwen::VideoPositionRule parse_rule(std::string_view rule) {
  require<UsageError>(rule == "max_hw" || rule == "max_all", "model.video_position_rule = \"", rule,
                      "\" is not known; allowed: max_hw, max_all");
  return rule == "max_hw" ? qwen::VideoPositionRule::kMaxHw : qwen::VideoPositionRule::kMaxAll;
}

}  // namespace

std::unique_ptr<Family> make_family(const Json& config, std::string_view origin,
                                    std::string_view preset, std::string_view video_position_rule) {
  qwen::Options options;
  if (config.is_null()) {
    options = qwen::preset(preset);
  } else {
    const auto type = config.is_object() ? config.find("model_type") : config.end();
    require(config.is_object() && type != config.end() && type->is_string(), origin,
            ": model_type is missing; is this a model's config.json?");
    require(*type == "qwen2_5_vl", origin, ": model_type ", type->dump(),
            " is not supported; this build knows \"qwen2_5_vl\"");
    options = qwen::parse_config(config, origin);
    if (!preset.empty()) {
      std::string text;
      for (const auto& difference : qwen::differences(qwen::preset(preset), options))
        text += "\n  " + difference;
      require<UsageError>(text.empty(), "model.preset = \"", preset, "\" differs from ", origin,
                          ":", text);
    }
  }
  options.video_position_rule = parse_rule(video_position_rule);
  return std::make_unique<Qwen2_5_VL>(std::move(options));
}

}  // namespace triptych

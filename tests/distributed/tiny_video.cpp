#include "tiny_video.h"

#include "base/random.h"
#include "parallel/layout_rules.h"
#include "parallel/options.h"
#include "video_transformer/model.h"

namespace triptych {

namespace {

namespace video = video_transformer;

/// A number in [0, 1) that is a function of its arguments.
double noise(int64_t a, int64_t b) {
  return uniform({98, RandomStream::kInit}, static_cast<uint64_t>(b), static_cast<uint64_t>(a));
}

class VideoFamily : public Family {
 public:
  std::string name() const override { return "video_transformer"; }
  Model build(at::ScalarType dtype, const ModelGroups& groups) const override {
    return video::build(options_, dtype, groups);
  }
  int64_t query_heads() const override { return options_.heads; }

  void validate_layout(const ParallelOptions& parallel, Problems& problems) const override {
    validate_tensor({.name = "text",
                     .heads = options_.text_heads,
                     .key_value_heads = options_.text_heads,
                     .mlp = options_.text_mlp},
                    parallel.tensor, problems);
    const LayerSizes transformer{.name = "transformer",
                                 .heads = options_.heads,
                                 .key_value_heads = options_.heads,
                                 .mlp = options_.mlp};
    validate_tensor(transformer, parallel.tensor, problems);
    validate_context(transformer, parallel, problems);
  }

  Flow make_flow(const MicroBatch& batch, std::span<const double> weights,
                 const FlowRequest& request) const override {
    std::vector<video::SampleView> views;
    for (const auto& row : batch.rows) {
      for (const auto& sample : row.samples) {
        const auto& medium = sample.media.front();
        views.push_back(
            {.index = sample.index,
             .text = sample.tokens,
             .frames = medium.grid.t,
             .frame_tokens = medium.grid.h * medium.grid.w,
             .latents = medium.rows,
             .loss_weight = views.size() < weights.size() ? weights[views.size()] : 1.0});
      }
    }
    return video::make_flow(options_, views,
                            {.dtype = request.dtype,
                             .dropout = request.dropout,
                             .seed = request.seed,
                             .step = request.step,
                             .groups = request.groups});
  }

  std::string_view loss_field() const override { return video::field::kLoss; }
  std::string_view token_losses_field() const override { return video::field::kTokenLosses; }
  std::string_view logits_field() const override { return "none"; }
  std::vector<std::string> travelling_fields() const override {
    return {video::field::kTextHidden, video::field::kHidden, video::field::kConditioning};
  }
  bool is_block(const Layer& layer) const override {
    return layer.name().starts_with("text.layers.") || layer.name().starts_with("blocks.");
  }
  std::string canonical_name(std::string_view stored) const override { return std::string(stored); }
  std::string module_path(std::string_view canonical) const override {
    return std::string(canonical);
  }
  Json config() const override { return {{"model_type", name()}}; }

  FlowSize flow_size(const MicroBatch& batch) const override {
    FlowSize size;
    for (const auto& row : batch.rows) {
      for (const auto& sample : row.samples) {
        size.tokens += static_cast<int64_t>(sample.tokens.size());
        size.patches += sample.media.front().grid.patches();
      }
    }
    size.label_tokens = size.patches;
    size.mean_square_length = static_cast<double>(size.tokens + size.patches);
    return size;
  }
  FlowSize typical_size(int64_t tokens) const override {
    return {.tokens = tokens / 10,
            .label_tokens = tokens,
            .patches = tokens,
            .mean_square_length = static_cast<double>(tokens)};
  }

 private:
  video::Options options_;
};

Sample make_sample(uint64_t index, Grid grid, int64_t words) {
  const auto key = static_cast<int64_t>(index) + 2000;
  const video::Options options;
  Sample sample{.index = index, .tokens = {}, .labels = {}, .media = {}, .origin = "tiny"};
  for (int64_t i = 0; i < words; ++i) {
    sample.tokens.push_back(
        static_cast<int32_t>(noise(key, i) * static_cast<double>(options.vocabulary)));
  }
  MediaPatches medium{.kind = MediaKind::kVideo, .grid = grid, .rows = {}};
  for (int64_t i = 0; i < grid.patches() * options.patch_values; ++i)
    medium.rows.push_back(static_cast<float>(2 * noise(key, 1000 + i) - 1));
  sample.media.push_back(std::move(medium));
  // the trainer counts labels but for a sample's first: that many video tokens carry a loss
  sample.labels.assign(static_cast<size_t>(grid.patches()) + 1, 0);
  return sample;
}

}  // namespace

std::unique_ptr<Family> make_tiny_video() { return std::make_unique<VideoFamily>(); }

Row tiny_video_row(int64_t index) {
  constexpr Grid kGrids[] = {{1, 2, 3}, {4, 2, 2}, {3, 3, 2}, {1, 1, 1}, {5, 1, 3}, {2, 4, 2}};
  Row row;
  for (int64_t s = 0; s < 1 + index % 3; ++s) {
    const int64_t number = index * 3 + s;
    row.samples.push_back(make_sample(static_cast<uint64_t>(number), kGrids[(index + 4 * s) % 6],
                                      1 + number * 5 % 7));
  }
  return row;
}

}  // namespace triptych

#include "tiny_qwen.h"

#include "base/files.h"
#include "base/json.h"
#include "base/random.h"
#include "models/qwen2_5_vl/options.h"

namespace triptych {

namespace {

namespace qwen = qwen2_5_vl;

constexpr int32_t kVocabulary = 70, kStart = 64, kEnd = 65, kImage = 66, kVideo = 67;

/// A number in [0, 1) that is a function of its arguments.
double noise(int64_t a, int64_t b) {
  return uniform({99, RandomStream::kInit}, static_cast<uint64_t>(b), static_cast<uint64_t>(a));
}

MediaPatches medium(Grid grid, bool video, int64_t key) {
  MediaPatches patches{.kind = video ? MediaKind::kVideo : MediaKind::kImage,
                       .grid = grid,
                       .seconds_per_grid = 0.5,
                       .rows = {}};
  patches.rows.resize(static_cast<size_t>(grid.patches() * 1176));
  for (size_t i = 0; i < patches.rows.size(); ++i)
    patches.rows[i] = static_cast<float>(2 * noise(key, static_cast<int64_t>(i)) - 1);
  return patches;
}

Sample make_sample(uint64_t index, const std::vector<MediaPatches>& media, int64_t prompt,
                   int64_t answer) {
  const auto key = static_cast<int64_t>(index) + 1000;
  Sample sample{.index = index, .tokens = {}, .labels = {}, .media = media, .origin = "tiny"};
  int64_t draw = 0;
  const auto text = [&](int64_t count, bool learn) {
    for (int64_t i = 0; i < count; ++i) {
      const auto token = static_cast<int32_t>(noise(key, draw++) * kStart);
      sample.tokens.push_back(token);
      sample.labels.push_back(learn ? token : static_cast<int32_t>(kIgnoreLabel));
    }
  };
  for (const auto& m : media) {
    text(1 + prompt % 3, false);
    const bool video = m.kind == MediaKind::kVideo;
    sample.tokens.push_back(kStart);
    sample.tokens.insert(sample.tokens.end(), static_cast<size_t>(m.grid.patches() / 4),
                         video ? kVideo : kImage);
    sample.tokens.push_back(kEnd);
    sample.labels.resize(sample.tokens.size(), static_cast<int32_t>(kIgnoreLabel));
  }
  text(prompt, false);
  text(answer, true);
  return sample;
}

}  // namespace

void write_tiny_qwen(const std::filesystem::path& folder, const TinyQwen& settings) {
  auto options = qwen::preset("qwen2_5_vl_3b");
  auto& vision = options.vision;
  vision.depth = 4;
  vision.hidden_size = vision.out_hidden_size = 32;
  vision.intermediate_size = 44;
  vision.num_heads = 4;
  vision.fullatt_block_indexes = {1, 3};
  auto& text = options.text;
  text.vocab_size = kVocabulary;
  text.hidden_size = 32;
  text.intermediate_size = 52;
  text.num_hidden_layers = 4;
  text.num_attention_heads = 4;
  text.num_key_value_heads = settings.key_value_heads;
  text.mrope_section = {1, 1, 2};
  text.initializer_range = 0.15;
  text.tie_word_embeddings = settings.tied;
  options.ids.image = kImage;
  options.ids.video = kVideo;
  options.ids.vision_start = kStart;
  options.ids.vision_end = kEnd;
  write_file_atomically(folder / "config.json", dump_json(qwen::make_config(options), 2));
}

Row tiny_row(int64_t index) {
  Row row;
  const auto first = static_cast<uint64_t>(index) * 3;
  const int64_t samples = 1 + index % 3;
  for (int64_t s = 0; s < samples; ++s) {
    const uint64_t number = first + static_cast<uint64_t>(s);
    const auto key = static_cast<int64_t>(number);
    std::vector<MediaPatches> media;
    if (index % 3 == 0) {  // text alone
    } else if (s == 0 && index % 2 == 0) {
      media = {medium({1, 4, 6}, false, key), medium({1, 10, 4}, false, key + 500)};
    } else if (s == 1) {
      media = {medium({2, 4, 4}, true, key)};
    } else {
      media = {medium({1, 2, 4}, false, key)};
    }
    row.samples.push_back(
        make_sample(number, media, 1 + key * 5 % 7, key % 4 == 3 ? 1 : key * 3 % 8));
  }
  return row;
}

}  // namespace triptych

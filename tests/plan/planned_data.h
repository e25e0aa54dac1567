#pragma once

// A run with data of its own: short samples with pictures of several sizes, text alone between
// them, a tokenizer, and the Qwen2.5-VL of planned_qwen.h with this tokenizer's ids.

#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/format.h"
#include "data/media/encode.h"
#include "data/text/bpe_trainer.h"
#include "plan/planned_qwen.h"

namespace triptych {

struct PlannedDataOptions {
  bool pictures = true;
  int64_t records = 240;
};

inline RgbImage plain_picture(int64_t width, int64_t height) {
  return {.size = {width, height},
          .pixels = std::vector<uint8_t>(static_cast<size_t>(width * height * 3), 120)};
}

/// Samples of 20 to 200 tokens: a third is text alone, the others have one picture or two.
inline void write_planned_records(const std::filesystem::path& file,
                                  const PlannedDataOptions& options) {
  constexpr int64_t kSides[] = {56, 84, 112, 196};
  for (const auto side : kSides)
    write_png(file.parent_path() / fmt::format("{}.png", side), plain_picture(side, 84));
  std::string text;
  for (int64_t i = 0; i < options.records; ++i) {
    const int64_t pictures = options.pictures ? i % 3 : 0;
    std::string names, question;
    for (int64_t p = 0; p < pictures; ++p) {
      names += fmt::format("{}\"{}.png\"", names.empty() ? "" : ", ", kSides[(i / 3 + p) % 4]);
      question += "<image>";
    }
    for (int64_t word = 0; word < 1 + i * 7 % 11; ++word) question += " boat";
    std::string answer = "There";
    for (int64_t word = 0; word < i * 5 % 13; ++word) answer += " are";
    text += fmt::format(
        R"({{"messages": [{{"role": "user", "content": "{}"}}, {{"role": "assistant", "content": "{}"}}], "images": [{}]}})"
        "\n",
        question, answer, names);
  }
  write_file_atomically(file, text);
}

/// Folder `model` with weights to be made at random, and train.jsonl with its pictures.
inline void write_planned_run(const std::filesystem::path& folder,
                              const PlannedDataOptions& options = {}) {
  const auto model = folder / "model";
  std::filesystem::create_directories(model);
  const std::vector<std::string> texts{"How many boats are there?", "There are three boats."};
  const auto bpe = train_bpe(texts, 280);
  save_tokenizer(bpe, model);
  write_file_atomically(model / "preprocessor_config.json",
                        R"({"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14,
                        "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136,
                        "max_pixels": 1003520})");
  auto qwen = medium_qwen(/*tied=*/false);
  const auto tokenizer = Tokenizer::from_folder(model);
  qwen.ids.image = tokenizer.require_id("<|image_pad|>");
  qwen.ids.video = tokenizer.require_id("<|video_pad|>");
  qwen.ids.vision_start = tokenizer.require_id("<|vision_start|>");
  qwen.ids.vision_end = tokenizer.require_id("<|vision_end|>");
  write_qwen(model, qwen);
  write_planned_records(folder / "train.jsonl", options);
}

}  // namespace triptych

// Draws the pictures of the quickstart, writes questions about them, and the folder of a small
// model that is not trained yet: its sizes, its tokenizer and how it sees pictures.
//
//   quickstart_data OUTPUT [SEED] [PICTURES]

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/json.h"
#include "data/media/encode.h"
#include "data/text/bpe_trainer.h"
#include "data/text/own_template.h"
#include "models/qwen2_5_vl/options.h"
#include "photographs.h"
#include "scene.h"

namespace quickstart {
namespace {

namespace fs = std::filesystem;
using triptych::Json;

constexpr int kHeldOutQuestions = 200;
constexpr int64_t kVocabulary = 400;

/// Every kind of picture as often as it has to be seen: telling two shapes apart is the hard one.
Example random_example(const Photographs& photographs, Random& random) {
  const int kind = random.below(10);
  if (kind < 1) return photographs.random_view(random);
  if (kind < 3) return one_shape(random);
  return kind < 9 ? two_shapes(random) : several_shapes(random);
}

Json turn(const std::string& from, const std::string& text) {
  return {{"from", from}, {"value", text}};
}

/// A LLaVA record with its picture; the questions one after another.
std::string record(const std::string& picture, const std::vector<Question>& questions) {
  Json turns = Json::array();
  for (const auto& question : questions) {
    turns.push_back(turn("human", (turns.empty() ? "<image>\n" : "") + question.text));
    turns.push_back(turn("gpt", question.answer));
  }
  return triptych::dump_json({{"image", picture}, {"conversations", turns}}) + "\n";
}

/// Thousands of pictures that can be made again need no flush to the disk.
void write_plainly(const fs::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  triptych::require(static_cast<bool>(file << bytes) && file.flush(), path.string(),
                    ": cannot be written");
}

/// Pictures of one kind of record file.
class Writer {
 public:
  Writer(fs::path data, std::string name) : data_(std::move(data)), name_(std::move(name)) {
    fs::create_directories(data_ / name_);
  }

  void add(const Example& example, const std::vector<Question>& questions) {
    const auto picture = fmt::format("{}/{:05}.jpg", name_, pictures_);
    if (!written_) write_plainly(data_ / picture, encode_jpeg(example.image, 92));
    records_ += record(picture, questions);
    written_ = true;
  }
  void next_picture() {
    ++pictures_;
    written_ = false;
  }
  void finish() const { triptych::write_file_atomically(data_ / (name_ + ".jsonl"), records_); }

 private:
  fs::path data_;
  std::string name_, records_;
  int pictures_ = 0;
  bool written_ = false;
};

/// @return every text, for the tokenizer.
std::vector<std::string> write_training_data(const fs::path& data, const Photographs& photographs,
                                             uint64_t seed, int pictures) {
  Random random(seed);
  Writer writer(data, "train");
  std::vector<std::string> texts;
  for (int i = 0; i < pictures; ++i) {
    auto example = random_example(photographs, random);
    random.shuffle(std::span(example.questions));
    writer.add(example, example.questions);
    writer.next_picture();
    for (const auto& question : example.questions) {
      texts.push_back(question.text);
      texts.push_back(question.answer);
    }
  }
  writer.finish();
  return texts;
}

/// One record a question, so that no earlier answer helps.
void write_held_out_data(const fs::path& data, const Photographs& photographs, uint64_t seed) {
  Random random(seed + 1);
  Writer writer(data, "held_out");
  for (int questions = 0; questions < kHeldOutQuestions; ++questions) {
    const auto example = random_example(photographs, random);
    writer.add(example, {random.pick(example.questions)});
    writer.next_picture();
  }
  writer.finish();
}

void write_model_folder(const fs::path& folder, std::vector<std::string> texts) {
  texts.emplace_back("system user assistant You are a helpful assistant.");
  const auto bpe = triptych::train_bpe(texts, kVocabulary);
  fs::create_directories(folder);
  save_tokenizer(bpe, folder);
  const auto id = [&](std::string_view content) -> int64_t {
    for (const auto& token : bpe.added) {
      if (token.content == content) return token.id;
    }
    triptych::fail("the tokenizer has no ", content);
  };

  triptych::qwen2_5_vl::Options options;
  options.vision = {.depth = 2,
                    .hidden_size = 96,
                    .intermediate_size = 192,
                    .num_heads = 3,
                    .out_hidden_size = 128,
                    .fullatt_block_indexes = {1}};
  options.text = {.vocab_size = static_cast<int64_t>(bpe.pieces.size() + bpe.added.size()),
                  .hidden_size = 128,
                  .intermediate_size = 384,
                  .num_hidden_layers = 3,
                  .num_attention_heads = 4,
                  .num_key_value_heads = 2,
                  .rms_norm_eps = 1e-6,
                  .mrope_section = {4, 6, 6},
                  .tie_word_embeddings = true,
                  .initializer_range = 0.05};  // 0.02 is for layers some ten times as wide
  options.ids = {.image = id("<|image_pad|>"),
                 .video = id("<|video_pad|>"),
                 .vision_start = id("<|vision_start|>"),
                 .vision_end = id("<|vision_end|>"),
                 .end_of_turn = id("<|im_end|>"),
                 .end_of_text = id("<|endoftext|>")};
  const auto write = [&](const char* name, const Json& json) {
    triptych::write_file_atomically(folder / name, triptych::dump_json(json, 2) + "\n");
  };
  triptych::write_file_atomically(folder / "chat_template.jinja", triptych::qwen2_5_vl_jinja());
  write("config.json", make_config(options));
  write("preprocessor_config.json", {{"image_processor_type", "Qwen2VLImageProcessor"},
                                     {"processor_class", "Qwen2_5_VLProcessor"},
                                     {"min_pixels", 3136},
                                     {"max_pixels", 31360},
                                     {"patch_size", 14},
                                     {"temporal_patch_size", 2},
                                     {"merge_size", 2},
                                     {"image_mean", {0.48145466, 0.4578275, 0.40821073}},
                                     {"image_std", {0.26862954, 0.26130258, 0.27577711}}});
  write("generation_config.json",
        {{"bos_token_id", options.ids.end_of_text},
         {"eos_token_id", {options.ids.end_of_turn, options.ids.end_of_text}},
         {"pad_token_id", options.ids.end_of_text},
         {"do_sample", false}});
}

void run(const fs::path& output, uint64_t seed, int pictures) {
  const Photographs photographs(fs::path(QUICKSTART_SOURCE_DIR) / "photographs");
  const auto texts = write_training_data(output / "data", photographs, seed, pictures);
  write_held_out_data(output / "data", photographs, seed);
  write_model_folder(output / "model", texts);
  fmt::print("{} pictures to train on, {} questions held out, in {}\n", pictures, kHeldOutQuestions,
             (output / "data").string());
}

}  // namespace
}  // namespace quickstart

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fputs("usage: quickstart_data OUTPUT [SEED] [PICTURES]\n", stderr);
    return 2;
  }
  try {
    quickstart::run(argv[1], argc > 2 ? std::stoull(argv[2]) : 1,
                    argc > 3 ? std::stoi(argv[3]) : 8000);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "data/media/encode.h"
#include "data/pipeline.h"
#include "data/text/bpe_trainer.h"
#include "tests/data/media_testing.h"

namespace triptych {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int have = 0;
  for (const unsigned char c : bytes) {
    bits = bits << 8 | c;
    for (have += 8; have >= 6; have -= 6) out += kDigits[bits >> (have - 6) & 63];
  }
  if (have > 0) out += kDigits[bits << (6 - have) & 63];
  return out;
}

/// A model folder with a small vocabulary, and pictures: a.png 180x100 (grid 8x12), b.png 30x40
/// (enlarged to 6x4), torn.png (good header, no body), v.mp4.
class QwenData : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    set_log_level(LogLevel::kError);
    folder() = std::filesystem::path(::testing::TempDir()) / "load_qwen";
    std::filesystem::remove_all(folder());
    std::filesystem::create_directories(folder());
    const std::vector<std::string> texts{"How many boats are there?", "There are three boats."};
    save_tokenizer(train_bpe(texts, 280), folder());
    write_file_atomically(folder() / "preprocessor_config.json",
                          R"({"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14,
                          "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136,
                          "max_pixels": 31360})");
    write_png(folder() / "a.png", testing::noise_image(180, 100, 1));
    write_png(folder() / "b.png", testing::noise_image(30, 40, 2));
    const auto whole = encode_png(testing::noise_image(180, 100, 3));
    write_file_atomically(folder() / "torn.png", std::string_view(whole).substr(0, 500));
    write_file_atomically(folder() / "no.png", "no picture");
    std::vector<RgbImage> frames;
    for (int64_t i = 0; i < 8; ++i) frames.push_back(testing::numbered_frame(i, 96, 64));
    write_video(folder() / "v.mp4", frames, {.fps = 4});
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder()); }

  static std::filesystem::path& folder() {
    static std::filesystem::path path;
    return path;
  }

  static std::unique_ptr<QwenProcessor> processor(DataOptions options = {}) {
    options.chat_template = "qwen2_5_vl";
    return make_processor(options, folder());
  }

  static Dataset dataset(const std::vector<std::string>& records) {
    std::string text;
    for (const auto& record : records) text += record + "\n";
    write_file_atomically(folder() / "d.jsonl", text);
    return open_dataset({{.path = "d.jsonl"}}, folder());
  }

  static std::string record(const std::string& question, const std::string& columns,
                            const std::string& answer = "Three.") {
    return R"({"messages": [{"role": "user", "content": ")" + question +
           R"("}, {"role": "assistant", "content": ")" + answer + "\"}]" + columns + "}";
  }
};

struct Case {
  const char* what;
  const char* question;
  const char* columns;
  std::vector<Grid> grids;
};

TEST_F(QwenData, LengthIsKnownWithoutDecodingAndPlaceholdersMatchGrids) {
  const Case cases[] = {
      {"text", "How many?", "", {}},
      {"picture", "<image>How many?", R"(, "images": ["a.png"])", {{1, 8, 12}}},
      {"two", "<image>or<image>?", R"(, "images": ["b.png", "a.png"])", {{1, 6, 4}, {1, 8, 12}}},
      {"video", "<video>What?", R"(, "videos": ["v.mp4"])", {{2, 4, 6}}},
      {"frames", "<video>?", R"(, "videos": [["a.png", "a.png", "a.png", "a.png"]])", {{2, 8, 12}}},
      {"both",
       "<video><image>",
       R"(, "videos": ["v.mp4"], "images": ["b.png"])",
       {{2, 4, 6}, {1, 6, 4}}},
  };
  const auto made = processor({.video_min_pixels = 3136, .video_max_pixels = 31360});
  const auto image_pad = made->tokenizer().require_id("<|image_pad|>");
  const auto video_pad = made->tokenizer().require_id("<|video_pad|>");
  for (const auto& row : cases) {
    SCOPED_TRACE(row.what);
    const auto conversation = dataset({record(row.question, row.columns)}).conversation({0, 0});
    const auto size = made->measure(conversation);
    const auto sample = made->make(conversation);
    EXPECT_EQ(sample.origin, "d.jsonl:1");
    ASSERT_EQ(sample.tokens.size(), static_cast<size_t>(size.tokens));
    ASSERT_EQ(sample.labels.size(), sample.tokens.size());
    ASSERT_EQ(sample.media.size(), row.grids.size());
    int64_t pads = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < row.grids.size(); ++i) {
      EXPECT_EQ(sample.media[i].grid, row.grids[i]);
      EXPECT_EQ(sample.media[i].rows.size(), static_cast<size_t>(row.grids[i].patches() * 1176));
      pads += row.grids[i].patches() / 4;
      bytes += sample.media[i].rows.size() * sizeof(float);
    }
    EXPECT_EQ(size.media_bytes, bytes);
    EXPECT_EQ(std::count_if(sample.tokens.begin(), sample.tokens.end(),
                            [&](int32_t id) { return id == image_pad || id == video_pad; }),
              pads);
    std::vector<int32_t> learned;
    for (size_t i = 0; i < sample.labels.size(); ++i) {
      if (sample.labels[i] == kIgnoreLabel) continue;
      EXPECT_EQ(sample.labels[i], sample.tokens[i]);
      learned.push_back(sample.labels[i]);
    }
    EXPECT_EQ(made->tokenizer().decode(learned), "Three.<|im_end|>\n");
    EXPECT_EQ(size.labels, static_cast<int32_t>(learned.size()));

    const auto blank = made->make_blank(conversation);
    EXPECT_EQ(blank.tokens, sample.tokens);
    EXPECT_EQ(std::count(blank.labels.begin(), blank.labels.end(), kIgnoreLabel),
              static_cast<std::ptrdiff_t>(blank.labels.size()));
    for (size_t i = 0; i < row.grids.size(); ++i) {
      EXPECT_EQ(blank.media[i].grid, sample.media[i].grid);
      EXPECT_EQ(blank.media[i].rows.size(), sample.media[i].rows.size());
    }
  }
}

TEST_F(QwenData, DataUrisAreThePicture) {
  const auto uri = "data:image/png;base64," + base64(read_file(folder() / "a.png"));
  const auto data = dataset({record("<image>?", R"(, "images": ["a.png"])"),
                             record("<image>?", ", \"images\": [\"" + uri + "\"]")});
  const auto made = processor();
  const auto file = made->make(data.conversation({0, 0}));
  const auto inside = made->make(data.conversation({0, 1}));
  EXPECT_EQ(file.tokens, inside.tokens);
  EXPECT_EQ(file.media[0].rows, inside.media[0].rows);
}

TEST_F(QwenData, BadMediaNameRecordAndFile) {
  const auto data = dataset({record("<image>?", R"(, "images": ["no.png"])"),
                             record("<image>?", R"(, "images": ["torn.png"])"),
                             record("<video>?", R"(, "videos": ["no.png"])"),
                             record("<image>?", R"(, "images": ["data:image/png;base64,!!"])"),
                             record("<image>?", R"(, "images": ["a.png"])")});
  const auto made = processor();
  const auto measure = [&](int64_t i) { return made->measure(data.conversation({0, i})); };
  EXPECT_THAT([&] { measure(0); },
              ThrowsMessage<DataError>(AllOf(StartsWith("d.jsonl:1: "), HasSubstr("no.png"))));
  EXPECT_EQ(measure(1).labels, measure(4).labels);  // its header is fine
  EXPECT_THAT([&] { made->make(data.conversation({0, 1})); },
              ThrowsMessage<DataError>(AllOf(StartsWith("d.jsonl:2: "), HasSubstr("torn.png"))));
  EXPECT_EQ(made->make_blank(data.conversation({0, 1})).media[0].grid, (Grid{1, 8, 12}));
  EXPECT_THAT([&] { measure(2); },
              ThrowsMessage<DataError>(AllOf(StartsWith("d.jsonl:3: "), HasSubstr("no.png"))));
  EXPECT_THAT([&] { measure(3); }, ThrowsMessage<DataError>(HasSubstr("wrong base64 at offset 0")));
}

TEST_F(QwenData, TooLongIsBadOrCutButNeverInsideAPicture) {
  std::string words;
  for (int i = 0; i < 200; ++i) words += " boats";
  const auto data = dataset(
      {record(words, "", words), record("<image>?" + words, R"(, "images": ["a.png"])", words)});
  DataOptions options{.max_length = 120};
  EXPECT_THAT([&] { processor(options)->measure(data.conversation({0, 0})); },
              ThrowsMessage<DataError>(AllOf(StartsWith("d.jsonl:1: "), HasSubstr("120"))));
  options.too_long = TooLong::kCut;
  const auto cut = processor(options)->make(data.conversation({0, 0}));
  EXPECT_LE(cut.tokens.size(), 120);
  EXPECT_EQ(processor(options)->measure(data.conversation({0, 0})).tokens, cut.tokens.size());
  const auto pictured = processor(options)->make(data.conversation({0, 1}));
  const auto pad = processor(options)->tokenizer().require_id("<|image_pad|>");
  EXPECT_EQ(std::count(pictured.tokens.begin(), pictured.tokens.end(), pad), 24);
  EXPECT_EQ(pictured.media.size(), 1);
  options.max_length = 30;  // the picture alone takes 24 after 20 of system turn
  EXPECT_THAT([&] { processor(options)->measure(data.conversation({0, 1})); },
              ThrowsMessage<DataError>(StartsWith("d.jsonl:2: ")));
}

TEST_F(QwenData, LoadsMixedRowsAndBlanksTheTornPicture) {
  std::vector<std::string> records;
  for (int i = 0; i < 4; ++i) {
    records.push_back(record("How many?", ""));
    records.push_back(record("<image>How many?", R"(, "images": ["a.png"])"));
    records.push_back(record("<image>How many?", R"(, "images": ["torn.png"])"));
    records.push_back(record("<image>How many?", R"(, "images": ["no.png"])"));
  }
  const auto data = dataset(records);
  DataOptions options{.max_length = 256, .on_bad_sample = OnBadSample::kSkip};
  const auto made = processor(options);
  Loader loader(data, *made, loader_options(options), 1, {});
  int64_t samples = 0, blank = 0;
  for (auto batch = loader.next_step(); batch.epoch <= 1.0; batch = loader.next_step()) {
    for (const auto& sample : batch.micro_batches[0].rows[0].samples) {
      if (sample.index >= 16) continue;
      ++samples;
      blank += std::all_of(sample.labels.begin(), sample.labels.end(),
                           [](int32_t label) { return label == kIgnoreLabel; });
    }
    if (batch.epoch == 1.0) break;
  }
  EXPECT_EQ(samples, 12);
  EXPECT_EQ(blank, 4);
  EXPECT_EQ(loader.skipped().bad, 4);
}

TEST_F(QwenData, OtherModelsFormatsAreRefused) {
  EXPECT_THAT(
      [] { open_dataset({{.path = "d.jsonl", .format = SourceFormat::kVideos}}, folder()); },
      ThrowsMessage<UsageError>(HasSubstr("\"videos\" of d.jsonl")));
}

}  // namespace
}  // namespace triptych

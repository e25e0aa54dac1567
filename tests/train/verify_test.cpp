// verify_test FOLDER...: every quantity of the folders must be within its tolerance, and a
// deliberate mistake in the expected values must be found.

#include "train/verify.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "models/qwen2_5_vl/options.h"
#include "train/verify_batches.h"
#include "train/verify_inputs.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using testing::ThrowsMessage;
using testing::UnorderedElementsAre;

std::vector<std::string> folders;

TEST(Verify, EveryQuantityEqualsTheReference) {
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    const auto table = verify_folder(folder);
    EXPECT_TRUE(table.ok()) << folder << "\n" << table.text();
    EXPECT_GE(table.rows().size(), 100U) << "quantities are missing";
  }
}

/// A copy of what `verify_inputs` reads of the first folder, to be spoilt.
class VerifyInputs : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(folders.empty());
    fs::create_directories(copy_);
    for (const char* name : {"ckpt", "tokenizer", "media"}) copy(name);
    for (const char* name : {"manifest.json", "conversations.jsonl", "conversations_expected.json",
                             "images.safetensors", "inputs.safetensors", "expected.safetensors"})
      copy(name);
  }
  void TearDown() override { fs::remove_all(copy_); }

  void copy(const std::string& name) {
    fs::copy(fs::path(folders.front()) / name, copy_ / name, fs::copy_options::recursive);
  }

  void change_json(const std::string& name, const std::function<void(Json&)>& change) {
    auto json = read_json(copy_ / name);
    change(json);
    std::ofstream(copy_ / name) << dump_json(json);
  }

  /// Rewrites one tensor of a file.
  void change_tensor(const std::string& name, const std::string& tensor,
                     const std::function<void(at::Tensor&)>& change) {
    const auto old = SafetensorsFile::open(copy_ / name);
    SafetensorsWriter writer(copy_ / "new", old->header());
    for (const auto& entry : old->header().tensors) {
      auto value = old->read(entry.name);
      if (entry.name == tensor) change(value);
      writer.write(value);
    }
    writer.finish();
    fs::rename(copy_ / "new", copy_ / name);
  }

  /// Names of the rows that fail.
  std::vector<std::string> failures() {
    const auto manifest = read_json(copy_ / "manifest.json");
    const auto config = read_json(copy_ / "ckpt" / "config.json");
    const ReferenceBatches reference(copy_, manifest,
                                     qwen2_5_vl::parse_config(config, "config.json").ids);
    table_ = {};
    verify_inputs(copy_, manifest, reference, table_);
    std::vector<std::string> names;
    for (const auto& row : table_.rows()) {
      if (!row.ok()) names.push_back(row.quantity);
    }
    EXPECT_EQ(table_.ok(), names.empty());
    return names;
  }

  const fs::path copy_ = fs::temp_directory_path() / fmt::format("verify_test_{}", getpid());
  VerifyTable table_;
};

TEST_F(VerifyInputs, AManifestWithoutAValueIsNoFaultOfOurs) {
  copy("grads.safetensors");
  change_json("manifest.json", [](Json& m) { m.erase("parameters"); });
  EXPECT_THAT([&] { verify_folder(copy_); },
              ThrowsMessage<DataError>(AllOf(HasSubstr("manifest.json: is not as the script"),
                                             HasSubstr("'parameters'"))));
}

TEST_F(VerifyInputs, ACopyPasses) { EXPECT_THAT(failures(), IsEmpty()) << table_.text(); }

TEST_F(VerifyInputs, SpoiltPicturesFail) {
  change_tensor("images.safetensors", "image3", [](at::Tensor& t) { t.zero_(); });
  EXPECT_THAT(failures(), ElementsAre("pixel_values.pil"));
}

TEST_F(VerifyInputs, OneSpoiltPixelOfAFrameFails) {
  change_tensor("images.safetensors", "video", [](at::Tensor& t) {
    t[4][50][90][1] = (t[4][50][90][1].item<int64_t>() + 128) % 256;
  });
  EXPECT_THAT(failures(), ElementsAre("pixel_values_videos.pil"));
}

TEST_F(VerifyInputs, ASpoiltPictureFileFails) {
  fs::copy_file(copy_ / "media/frame0.png", copy_ / "media/image0.png",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT(failures(), Contains("b0.pixel_values"));
}

TEST_F(VerifyInputs, SpoiltSizesFail) {
  change_json("manifest.json", [](Json& m) {
    auto& width = m["smart_resize"][2]["out"][1];
    width = width.get<int64_t>() + 28;
  });
  EXPECT_THAT(failures(), ElementsAre(StartsWith("smart_resize")));
  change_json("manifest.json", [](Json& m) { m["smart_resize"] = Json::array(); });
  EXPECT_THAT(failures(), ElementsAre(StartsWith("smart_resize")));
}

TEST_F(VerifyInputs, SpoiltTokensOfTextsFail) {
  change_json("manifest.json", [](Json& m) { m["tokenization"][3]["ids"][0] = 0; });
  EXPECT_THAT(failures(), ElementsAre(StartsWith("tokens of texts")));
}

TEST_F(VerifyInputs, SpoiltIdsOfRecordsFail) {
  change_json("conversations_expected.json", [](Json& list) { list[7]["ids"].push_back(1); });
  EXPECT_THAT(failures(), ElementsAre(StartsWith("tokens of records")));
}

TEST_F(VerifyInputs, SpoiltLabelsOfRecordsFail) {
  change_json("conversations_expected.json", [](Json& list) { list[7]["labels"].back() = -100; });
  EXPECT_THAT(failures(), ElementsAre(StartsWith("labels of records")));
}

TEST_F(VerifyInputs, SpoiltInputsOfBatchesFail) {
  change_tensor("inputs.safetensors", "b1.input_ids", [](at::Tensor& t) { t[1][3] += 1; });
  change_tensor("inputs.safetensors", "b2.labels", [](at::Tensor& t) { t[0][2] = 5; });
  change_tensor("inputs.safetensors", "packed.pixel_values", [](at::Tensor& t) { t[0][0] += 1; });
  EXPECT_THAT(failures(), UnorderedElementsAre(StartsWith("b1.input_ids"), StartsWith("b2.labels"),
                                               "packed.pixel_values"));
}

TEST_F(VerifyInputs, AnotherTokenizerFails) {
  change_json("tokenizer/tokenizer.json", [](Json& t) { t["model"]["merges"].erase(5); });
  EXPECT_THAT(failures(), Contains(StartsWith("tokens of records: tokenizer")));
}

TEST_F(VerifyInputs, FoldersOfTheFirstFormatSayWhatTheyLack) {
  change_json("manifest.json", [](Json& m) { m.erase("format"); });
  fs::remove(copy_ / "conversations_expected.json");
  EXPECT_THAT(failures(), IsEmpty());
  EXPECT_THAT(table_.text(), HasSubstr("absent"));
  change_json("manifest.json", [](Json& m) { m["format"] = 2; });
  EXPECT_THROW(failures(), Error);
}

TEST(VerifyTable, SeesWhatIsWrong) {
  VerifyTable table;
  const auto x = at::arange(4, at::kFloat);
  table.compare("equal", x, x, Measure::kAbsolute, 0);
  EXPECT_TRUE(table.ok());
  table.compare("off by one", x, x + 1, Measure::kAbsolute, 0.5);
  table.compare("another shape", x, at::zeros({5}), Measure::kAbsolute, 1e9);
  table.compare("not a number", x / 0 * 0, x, Measure::kRelativeL2, 1e9);
  table.compare("one differs", at::tensor({1, 2}), at::tensor({1, 3}), Measure::kExact, 0);
  table.compare_exactly("ids", Json({1, 2}), Json({1, 3}));
  for (size_t i = 1; i < table.rows().size(); ++i)
    EXPECT_FALSE(table.rows()[i].ok()) << table.rows()[i].quantity;
}

TEST(Verify, SaysWhatIsMissing) {
  EXPECT_THAT([] { verify_folder("/nonexistent"); },
              testing::ThrowsMessage<DataError>(testing::HasSubstr("manifest.json is missing")));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  triptych::folders.assign(argv + 1, argv + argc);
  return RUN_ALL_TESTS();
}

#include "checkpoint/hub_folder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

/// Two shards, an index as others write it, and a configuration.
void make_sharded(const fs::path& folder) {
  make_folders(folder);
  at::manual_seed(3);
  save_safetensors(
      folder / "model-00001-of-00002.safetensors",
      {{"b", at::randn({4, 6}).to(at::kBFloat16)}, {"a", at::randn({3}).to(at::kBFloat16)}});
  save_safetensors(folder / "model-00002-of-00002.safetensors",
                   {{"c", at::randn({5}).to(at::kBFloat16)}});
  write(
      folder / "model.safetensors.index.json",
      R"({"metadata": {"total_size": 64},  "weight_map": {"a": "model-00001-of-00002.safetensors",)"
      R"( "b": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"}})");
  write(folder / "config.json", "{}");
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename().string()] = read_file(entry.path());
  }
  return files;
}

TEST(HubFolder, AnUntouchedModelComesOutByteForByte) {
  const Scratch scratch;
  make_sharded(scratch / "in");
  const auto hub = HubFolder::open(scratch / "in");
  EXPECT_THAT(hub.names(), ElementsAre("b", "a", "c"));
  const auto files = side_files(scratch / "in");
  save_hub_folder(
      scratch / "out", hub.layout(), [&](const auto& name) { return hub.view(name); }, files);
  EXPECT_EQ(contents(scratch / "out"), contents(scratch / "in"));
  // fp32 copies of bf16 weights, as masters are, round back to the same.
  save_hub_folder(
      scratch / "out", hub.layout(), [&](const auto& name) { return hub.read(name, at::kFloat); },
      files, /*replace=*/true);
  EXPECT_EQ(contents(scratch / "out"), contents(scratch / "in"));
}

TEST(HubFolder, HeadersOfOtherWritersAreKept) {
  const Scratch scratch;
  make_folders(scratch / "in");
  const std::string header =
      "{ \"x\" : {\"shape\":[1], \"data_offsets\":[0,4], \"dtype\":\"F32\"} }       ";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  write(scratch / "in/model.safetensors", file + header + std::string("\0\0\200\77", 4));
  const auto hub = HubFolder::open(scratch / "in");
  EXPECT_EQ(hub.read("x").item<float>(), 1);
  save_hub_folder(scratch / "out", hub.layout(), [&](const auto& name) { return hub.view(name); });
  EXPECT_EQ(contents(scratch / "out"), contents(scratch / "in"));
}

TEST(HubFolder, OwnLayoutSortsNamesAndFillsShards) {
  const Scratch scratch;
  const auto layout = make_layout({{"c", at::kFloat, {10}},
                                   {"a", at::kFloat, {10}},
                                   {"b", at::kFloat, {30}},
                                   {"d", at::kBFloat16, {10}}},
                                  80);
  ASSERT_EQ(layout.files.size(), 3);
  EXPECT_EQ(layout.files[1].name, "model-00002-of-00003.safetensors");
  EXPECT_THAT(layout.names(), ElementsAre("a", "b", "c", "d"));
  save_hub_folder(scratch / "out", layout, [&](const std::string& name) {
    return at::full({name == "b" ? 30 : 10}, name[0], at::kFloat);
  });
  const auto hub = HubFolder::open(scratch / "out");
  EXPECT_EQ(hub.read("c", at::kInt).sum().item<int>(), 10 * 'c');
  EXPECT_EQ(hub.at("d").type, StoredType::kBF16);
  const auto index = read_json(scratch / "out/model.safetensors.index.json");
  EXPECT_EQ(index["metadata"]["total_size"], 220);
  EXPECT_EQ(index["weight_map"]["d"], "model-00003-of-00003.safetensors");
  EXPECT_EQ(make_layout({{"a", at::kFloat, {10}}}).files[0].name, "model.safetensors");
}

TEST(HubFolder, PrecisionOfALayoutCanChange) {
  const Scratch scratch;
  make_sharded(scratch / "in");
  const auto hub = HubFolder::open(scratch / "in");
  const auto layout = with_dtype(hub.layout(), at::kFloat);
  save_hub_folder(scratch / "out", layout, [&](const auto& name) { return hub.view(name); });
  const auto wide = HubFolder::open(scratch / "out");
  EXPECT_TRUE(wide.read("b").equal(hub.read("b", at::kFloat)));
  EXPECT_EQ(read_json(scratch / "out/model.safetensors.index.json")["metadata"]["total_size"], 128);
}

TEST(HubFolder, OpensDiffusersFoldersAndPrefersTheSingleFile) {
  const Scratch scratch;
  save_safetensors(scratch / "diffusion_pytorch_model.safetensors", {{"x", at::ones({1})}});
  EXPECT_TRUE(HubFolder::open(scratch.path()).contains("x"));
  save_safetensors(scratch / "model.safetensors", {{"y", at::ones({1})}});
  write(scratch / "model.safetensors.index.json", "not read");
  EXPECT_TRUE(HubFolder::open(scratch.path()).contains("y"));
  EXPECT_TRUE(HubFolder::open(scratch.path(), "diffusion_pytorch_model").contains("x"));
}

struct Damage {
  const char* what;
  std::function<void(const fs::path&)> make;
  const char* message;
};

TEST(HubFolderErrors, NameWhatIsWrong) {
  const char* const index = "model.safetensors.index.json";
  const char* const shard = "model-00002-of-00002.safetensors";
  const auto weight_map = [index](const std::string& map) {
    return [=](const fs::path& f) { write(f / index, R"({"weight_map": )" + map + "}"); };
  };
  const std::string a = R"("a": "model-00001-of-00002.safetensors")";
  const Damage rows[] = {
      {"missing shard", [&](const auto& f) { fs::remove(f / shard); },
       "1 of the 2 files named by model.safetensors.index.json are missing: model-00002-of-00002"},
      {"truncated shard",
       [&](const auto& f) { fs::resize_file(f / shard, fs::file_size(f / shard) - 1); },
       "model-00002-of-00002.safetensors: the file is truncated: its header describes"},
      {"unknown name", weight_map("{" + a + R"(, "q": "model-00002-of-00002.safetensors"})"),
       "says that tensor 'q' is in model-00002-of-00002.safetensors, which has none of that name"},
      {"wrong shard", weight_map("{" + a + R"(, "b": "model-00002-of-00002.safetensors"})"),
       "but it is in model-00001-of-00002.safetensors"},
      {"outside", weight_map(R"({"a": "../model.safetensors"})"),
       "allowed are .safetensors files of this folder"},
      {"a pickle", weight_map(R"({"a": "pytorch_model.bin"})"), "allowed are .safetensors"},
      {"no map", weight_map("{}"), "'weight_map' must be an object"},
      {"a number", weight_map(R"({"a": 7})"), "gives 'a' the file 7"},
      {"not JSON", [&](const auto& f) { write(f / index, "{"); }, "index.json:1:"},
      {"twice", weight_map("{" + a + "," + a + "}"), "'a'"},
      {"in two shards",
       [&](const auto& f) {
         save_safetensors(f / shard, {{"c", at::ones({1})}, {"a", at::ones({1})}});
       },
       "tensor 'a' is in both model-00001-of-00002.safetensors and "
       "model-00002-of-00002.safetensors"},
      {"no index", [&](const auto& f) { fs::remove(f / index); },
       "has neither model.safetensors nor"},
      {"only pickles",
       [&](const auto& f) {
         for (const auto& entry : fs::directory_iterator(f)) fs::remove(entry.path());
         write(f / "pytorch_model.bin", "x");
       },
       "only pickles (pytorch_model.bin), which can run code"},
      {"no folder", [](const auto& f) { fs::remove_all(f); }, "does not exist"},
      {"a file", [](const auto& f) { fs::remove_all(f), write(f, ""); }, "is not a folder"},
  };
  for (const auto& row : rows) {
    const Scratch scratch;
    make_sharded(scratch / "m");
    row.make(scratch / "m");
    EXPECT_THAT([&] { HubFolder::open(scratch / "m"); },
                ThrowsMessage<Error>(HasSubstr(row.message)))
        << row.what;
  }
}

TEST(HubFolder, ComparisonCountsAndShowsTheFirstTen) {
  const Scratch scratch;
  make_sharded(scratch / "m");
  const auto hub = HubFolder::open(scratch / "m");
  EXPECT_TRUE(
      compare_tensors(std::vector<ExpectedTensor>{{"a", {3}}, {"b", {4, 6}}, {"c", {5}}}, hub)
          .ok());
  std::vector<ExpectedTensor> expected = {{"b", {6, 4}}, {"c", {5}}};
  for (int i = 10; i < 22; ++i) expected.push_back({"x" + std::to_string(i), {1}});
  const auto comparison = compare_tensors(expected, hub);
  EXPECT_FALSE(comparison.ok());
  EXPECT_THAT(
      comparison.report(),
      AllOf(
          HasSubstr("12 tensors missing:"), HasSubstr("'x19'"), Not(HasSubstr("'x20'")),
          HasSubstr("and 2 more"), HasSubstr("1 tensor not known to the model:\n  'a'"),
          HasSubstr(
              "model-00001-of-00002.safetensors: tensor 'b' is [4, 6], the model expects [6, 4]")));
}

TEST(HubFolder, FindsNanAndInfinityInEveryPrecision) {
  const Scratch scratch;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::vector<std::string> bad;
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const double value :
         {1.0, std::nan(""), -std::numeric_limits<double>::infinity(), 60000.0}) {
      auto tensor = at::ones({9000}, type);
      tensor[8999] = value;
      tensors.emplace_back("t" + std::to_string(tensors.size()), tensor);
      if (!std::isfinite(value)) bad.push_back(tensors.back().first);
    }
  }
  tensors.emplace_back("whole", at::full({3}, -1, at::kLong));
  save_safetensors(scratch / "model.safetensors", tensors);
  const auto hub = HubFolder::open(scratch.path());
  EXPECT_EQ(nonfinite_tensors(hub, hub.names()), bad);
}

TEST(HubFolder, ASaveIsCompleteOrAbsent) {
  const Scratch scratch;
  make_sharded(scratch / "m");
  const auto hub = HubFolder::open(scratch / "m");
  const auto before = contents(scratch / "m");
  const auto failing = [&](const std::string& name) {
    require(name != "c", "no more");
    return hub.read(name);
  };
  EXPECT_THAT([&] { save_hub_folder(scratch / "m", hub.layout(), failing, {}, true); },
              ThrowsMessage<Error>(HasSubstr("no more")));
  EXPECT_EQ(contents(scratch / "m"), before);
  const auto provider = [&](const std::string& name) { return hub.read(name); };
  EXPECT_THAT([&] { save_hub_folder(scratch / "m", hub.layout(), provider); },
              ThrowsMessage<Error>(HasSubstr("is there already and not empty")));
  const std::vector<SideFile> outside = {{.name = "../x", .content = "x"}};
  EXPECT_THAT([&] { save_hub_folder(scratch / "n", hub.layout(), provider, outside); },
              ThrowsMessage<Error>(HasSubstr("'../x' is not the name of a file")));
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path()), {}), 1);
}

TEST(HubFolder, SideFilesAreThoseAReaderNeeds) {
  const Scratch scratch;
  make_sharded(scratch / "m");
  for (const char* name :
       {"merges.txt", "tokenizer.model", "chat_template.jinja", "modeling.py", "LICENSE",
        "pytorch_model.bin", "adapter_config.json", ".hidden.json", "notes.md"}) {
    write(scratch / "m" / name, "x");
  }
  std::vector<std::string> names;
  for (const auto& file : side_files(scratch / "m")) names.push_back(file.name);
  EXPECT_THAT(names, ElementsAre("LICENSE", "chat_template.jinja", "config.json", "merges.txt",
                                 "modeling.py", "tokenizer.model"));
}

}  // namespace
}  // namespace triptych

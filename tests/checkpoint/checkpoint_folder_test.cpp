#include "checkpoint/checkpoint_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "save_for_test.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

void save_steps(const fs::path& output, std::initializer_list<int64_t> steps, int64_t keep = 0) {
  CheckpointWriter writer({.output = output, .keep = keep, .async = false});
  for (const int64_t step : steps) {
    const SmallModel model(static_cast<double>(step));
    writer.save(step, model.weights(), model.pieces(), {{"step", step}});
  }
}

fs::path at_step(const Scratch& scratch, int64_t step) {
  return scratch.path() / "checkpoints" / checkpoint_name(step);
}

void flip_last_byte(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(byte);
}

TEST(CheckpointFolder, AnEmptyOutputHasNone) {
  const Scratch scratch;
  EXPECT_FALSE(find_newest_complete(scratch.path()));
  EXPECT_FALSE(find_newest_complete(scratch / "none"));
  EXPECT_EQ(remove_leftovers(scratch.path()), 0);
}

TEST(CheckpointFolder, HoldsWhatTheContractSays) {
  const Scratch scratch;
  save_steps(scratch.path(), {500});
  const auto found = find_newest_complete(scratch.path(), /*verify=*/true);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 500);
  EXPECT_EQ(found->folder, scratch / "checkpoints/step_00000500");
  EXPECT_EQ(found->state()["step"], 500);
  EXPECT_EQ(read_file(scratch / "checkpoints/latest"), "step_00000500\n");
  const auto manifest = Manifest::read(found->folder / "manifest.json");
  std::vector<std::string> names;
  for (const auto& [name, digest] : manifest.files) names.push_back(name);
  EXPECT_THAT(names,
              ElementsAre("optimizer/index.json", "optimizer/rank_00000-of-00001.safetensors",
                          "state.json", "weights/config.json", "weights/model.safetensors"));
  EXPECT_TRUE(HubFolder::open(found->weights()).read("a").equal(SmallModel(500).a));
  EXPECT_EQ(SafetensorsFile::open(found->optimizer() / "rank_00000-of-00001.safetensors")
                ->at("a.exp_avg")
                .shape,
            (std::vector<int64_t>{40, 30}));
  // Nothing else lies about.
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "checkpoints"), {}), 2);
  EXPECT_EQ(std::distance(fs::recursive_directory_iterator(found->folder), {}), 8);
}

TEST(CheckpointFolder, ADamagedNewestIsPassedOver) {
  struct Row {
    const char* what;
    std::function<void(const fs::path&)> damage;
    bool needs_verify;
  };
  const Row rows[] = {
      {"shorter", [](const auto& f) { fs::resize_file(f / "weights/model.safetensors", 100); },
       false},
      {"missing", [](const auto& f) { fs::remove(f / "optimizer/index.json"); }, false},
      {"manifest cut", [](const auto& f) { fs::resize_file(f / "manifest.json", 50); }, false},
      {"manifest empty", [](const auto& f) { fs::resize_file(f / "manifest.json", 0); }, false},
      {"no manifest", [](const auto& f) { fs::remove(f / "manifest.json"); }, false},
      {"one bit", [](const auto& f) { flip_last_byte(f / "weights/model.safetensors"); }, true},
  };
  for (const auto& row : rows) {
    const Scratch scratch;
    save_steps(scratch.path(), {7, 12});
    row.damage(at_step(scratch, 12));
    EXPECT_EQ(find_newest_complete(scratch.path(), true)->step, 7) << row.what;
    EXPECT_EQ(find_newest_complete(scratch.path())->step, row.needs_verify ? 12 : 7) << row.what;
  }
}

TEST(CheckpointFolder, NoneWholeIsAnErrorAndNotAFreshStart) {
  const Scratch scratch;
  save_steps(scratch.path(), {7});
  fs::remove(at_step(scratch, 7) / "state.json");
  EXPECT_THAT(
      [&] { find_newest_complete(scratch.path()); },
      ThrowsMessage<DataError>(HasSubstr("none of its 1 checkpoints is whole; the newest:")));
}

TEST(CheckpointFolder, OpensAPathOrSaysWhyNot) {
  const Scratch scratch;
  save_steps(scratch.path(), {7});
  EXPECT_EQ(open_checkpoint(at_step(scratch, 7)).step, 7);
  EXPECT_THAT([&] { open_checkpoint(at_step(scratch, 8)); },
              ThrowsMessage<DataError>(HasSubstr("is not a folder")));
  EXPECT_THAT([&] { open_checkpoint(scratch.path()); },
              ThrowsMessage<DataError>(HasSubstr("has no manifest.json")));
  flip_last_byte(at_step(scratch, 7) / "weights/model.safetensors");
  EXPECT_THAT([&] { open_checkpoint(at_step(scratch, 7), true); },
              ThrowsMessage<DataError>(HasSubstr("model.safetensors: has the checksum")));
}

TEST(CheckpointFolder, ManifestsAreNotTrusted) {
  const Scratch scratch;
  const std::string head =
      R"({"format":"triptych-checkpoint","version":1,"step":1,"world":1,"files":)";
  const std::pair<std::string, const char*> rows[] = {
      {R"({"format":"x"})", "'format' is \"x\""},
      {R"({"format":"triptych-checkpoint","version":2})",
       "is of version 2, this program reads version 1"},
      {R"({"format":"triptych-checkpoint","version":1,"step":-1})", "'step' is -1"},
      {head + "[]}", "'files' must be an object"},
      {head + R"({"../../etc/passwd":{"bytes":1,"xxh3":"0000000000000000"}}})",
       "outside the checkpoint"},
      {head + R"({"a/../../b":{"bytes":1,"xxh3":"0000000000000000"}}})", "outside the checkpoint"},
      {head + R"({"/a":{"bytes":1,"xxh3":"0000000000000000"}}})", "outside the checkpoint"},
      {head + R"({"a":{"bytes":1,"xxh3":"12"}}})", "is not 16 hexadecimal digits"},
  };
  for (const auto& [text, message] : rows) {
    write_file_atomically(scratch / "manifest.json", text);
    EXPECT_THAT([&] { Manifest::read(scratch / "manifest.json"); },
                ThrowsMessage<DataError>(HasSubstr(message)));
  }
}

TEST(CheckpointFolder, LeftoversGoAndCompleteOnesStay) {
  const Scratch scratch;
  save_steps(scratch.path(), {1, 2});
  const fs::path folder = scratch / "checkpoints";
  for (const char* name :
       {".step_00000003.tmp/weights", ".step_00000001.removed", "step_00000004/optimizer"}) {
    fs::create_directories(folder / name);
  }
  std::ofstream(folder / "latest.tmp77_0") << "x";
  std::ofstream(folder / "notes.txt") << "a user's";
  EXPECT_EQ(remove_leftovers(scratch.path()), 4);
  EXPECT_THAT(listed_checkpoints(scratch.path()), ElementsAre(1, 2));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 4);
}

TEST(CheckpointFolder, KeepsTheNewestOnes) {
  struct Row {
    int64_t keep;
    std::vector<int64_t> left;
  };
  for (const auto& [keep, left] :
       {Row{0, {10, 20, 30, 40}}, {1, {40}}, {2, {30, 40}}, {9, {10, 20, 30, 40}}}) {
    const Scratch scratch;
    save_steps(scratch.path(), {10, 20, 30, 40}, keep);
    EXPECT_EQ(listed_checkpoints(scratch.path()), left);
  }
}

TEST(CheckpointFolder, KeepDoesNotCountStepsOfAnAbandonedFuture) {
  const Scratch scratch;
  save_steps(scratch.path(), {10, 20, 30});
  save_steps(scratch.path(), {15}, /*keep=*/2);  // resumed from 10 by hand
  EXPECT_THAT(listed_checkpoints(scratch.path()), ElementsAre(10, 15, 20, 30));
}

TEST(CheckpointFolder, SavingAStepAgainReplacesIt) {
  const Scratch scratch;
  save_steps(scratch.path(), {5});
  fs::resize_file(at_step(scratch, 5) / "weights/model.safetensors", 9);
  save_steps(scratch.path(), {5});
  EXPECT_EQ(find_newest_complete(scratch.path(), true)->step, 5);
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch / "checkpoints"), {}), 2);
}

}  // namespace
}  // namespace triptych

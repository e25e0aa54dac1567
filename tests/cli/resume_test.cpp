// What a run looks at before it goes on: the folder, the checkpoint, the settings, the weights.

#include <gmock/gmock.h>

#include <cstring>
#include <limits>

#include "command_runs.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::Not;

class Resume : public CommandRuns {
 protected:
  fs::path run_file(const std::string& name,
                    const std::string& model = "weights = \"random\"") const {
    return write_run(name, folder_ / name, model, "steps = 4\nglobal_batch = 2",
                     "[checkpoint]\nevery = 2\nkeep = 5\n[log]\nevery = 1\n");
  }
  Outcome train(const fs::path& file, const std::string& more = "",
                const std::string& around = "{}") const {
    return run(fmt::format("train {} {}", file.string(), more), around);
  }
  /// Changes bits of a file from byte `at` on, from its end where that is negative.
  static void spoil(const fs::path& file, int64_t at, const std::string& bytes) {
    auto text = read_file(file);
    const auto place = at < 0 ? text.size() - static_cast<size_t>(-at) : static_cast<size_t>(at);
    text.replace(place, bytes.size(), bytes);
    write_file_atomically(file, text);
  }
};

TEST_F(Resume, ABitThatFlippedIsFoundByItsChecksum) {
  const auto file = run_file("a");
  ASSERT_EQ(train(file).status, 0);
  const auto weights = folder_ / "a/checkpoints/step_00000004/weights/model.safetensors";
  spoil(weights, -1, std::string(1, static_cast<char>(read_file(weights).back() ^ 1)));
  const auto unseen = train(file, "--set checkpoint.verify=false");
  EXPECT_THAT(unseen.err, HasSubstr("going on from step 4"));
  const auto seen = train(file, "--set train.steps=6");
  EXPECT_EQ(seen.status, 0) << seen.err;
  EXPECT_THAT(seen.err, HasSubstr("has the checksum"));
  EXPECT_THAT(seen.err, HasSubstr("going on from step 2"));
}

TEST_F(Resume, NamesTheSettingsThatChanged) {
  const auto file = run_file("a");
  ASSERT_EQ(train(file).status, 0);
  EXPECT_THAT(train(file, "--set train.steps=5").err, Not(HasSubstr("other settings")));
  EXPECT_THAT(
      train(file, "--set train.steps=6 --set data.max_length=200").err,
      HasSubstr("going on with other settings than before: data.max_length = 200 (was 256)"));
}

TEST_F(Resume, SettingsThatAreTurnedDownAreNotNoted) {
  const auto file = run_file("a");
  ASSERT_EQ(train(file).status, 0);
  const auto noted = read_file(folder_ / "a/run.toml");
  EXPECT_EQ(train(file, "--set train.steps=6 --set seed=99").status, 1);
  EXPECT_EQ(read_file(folder_ / "a/run.toml"), noted);
  EXPECT_EQ(train(file, "--set train.steps=6").status, 0);
  EXPECT_THAT(read_file(folder_ / "a/run.toml"), HasSubstr("steps = 6"));
}

TEST_F(Resume, ASecondRunInTheSameFolderIsRefused) {
  const auto file = run_file("a");
  const auto second =
      train(file, "--set train.steps=5",
            fmt::format("{} train {} --set train.steps=100000 2> {}/first & pid=$!; "
                        "while kill -0 $pid && ! grep -qs step {}/a/metrics.jsonl; "
                        "do sleep 0.02; done; {{}}; status=$?; kill -TERM $pid; "
                        "wait $pid; test $? = 75 && exit $status",
                        TRIPTYCH_COMMAND, file.string(), folder_.string(), folder_.string()));
  EXPECT_EQ(second.status, 2) << second.err;
  EXPECT_THAT(second.err, HasSubstr("is in use by another run"));
}

TEST_F(Resume, AnAdapterAndWholeWeightsAreToldApart) {
  const auto file = run_file("a");
  ASSERT_EQ(train(file).status, 0);
  const auto adapter = train(file, "--set train.steps=6 --set model.lora.rank=2");
  EXPECT_EQ(adapter.status, 1);
  EXPECT_THAT(adapter.err,
              HasSubstr("holds whole weights, the run trains an adapter (model.lora)"));
}

TEST_F(Resume, WeightsThatHoldNanAreRefusedWhereAsked) {
  ASSERT_EQ(train(run_file("a", "weights = \"random\"\nprecision = \"fp32\"")).status, 0);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::string bytes(sizeof nan, '\0');
  std::memcpy(bytes.data(), &nan, sizeof nan);
  spoil(folder_ / "a/final/model.safetensors", -static_cast<int64_t>(sizeof nan), bytes);
  const auto refused =
      train(run_file("b"), fmt::format("--set model.weights=load --set model.check_finite=true "
                                       "--set model.precision=fp32 --set model.path={}/a/final",
                                       folder_.string()));
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("holds NaN or infinity (1 such tensor)"));
}

TEST_F(Resume, AShortTimeOutNeedsNoOtherSetting) {
  EXPECT_EQ(train(run_file("a"), "--set launch.timeout_s=10 --set train.steps=1").status, 0);
}

}  // namespace
}  // namespace triptych

// The command `plan` as users and scripts call it, and every layout of the examples.

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/files.h"
#include "base/format.h"
#include "base/json.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kLayouts = fs::path(TRIPTYCH_SOURCE_DIR) / "examples/qwen2_5_vl/layouts";

struct Outcome {
  int status = -1;
  std::string out, err;
};

Outcome plan(const std::string& words) {
  const auto stem = fs::temp_directory_path() / fmt::format("plan_test_{}", getpid());
  const auto out = stem.string() + ".out", err = stem.string() + ".err";
  const int status =
      std::system(fmt::format("{} plan {} > {} 2> {}", TRIPTYCH_COMMAND, words, out, err).c_str());
  Outcome outcome{WEXITSTATUS(status), read_file(out), read_file(err)};
  fs::remove(out);
  fs::remove(err);
  return outcome;
}

std::string layout(const std::string& name) { return (kLayouts / name).string(); }

TEST(PlanCommand, JsonHasEveryRank) {
  const auto done = plan(layout("7b_8.toml") + " --nproc 8 --machine h100 --json");
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  EXPECT_EQ(json.at("parameters"), 8292166656);  // the hub's count of Qwen2.5-VL-7B
  ASSERT_EQ(json.at("ranks").size(), 8);
  for (size_t i = 0; i < 8; ++i) {
    const auto& rank = json.at("ranks")[i];
    EXPECT_EQ(rank.at("rank"), i);
    int64_t sum = 0;
    for (const char* kind : {"parameters", "gradients", "optimizer", "activations", "buffers"})
      sum += rank.at(kind).get<int64_t>();
    EXPECT_EQ(rank.at("total"), sum);
  }
  EXPECT_GT(json.at("time").at("bubble_share").get<double>(), 0);
}

TEST(PlanCommand, OneRankIsThatOfAll) {
  const auto words = layout("7b_8.toml") + " --nproc 8 --machine h100 --json";
  const auto all = plan(words), one = plan(words + " --rank 5");
  ASSERT_EQ(one.status, 0) << one.err;
  const auto ranks = parse_json(one.out, "plan").at("ranks");
  ASSERT_EQ(ranks.size(), 1);
  EXPECT_EQ(ranks[0], parse_json(all.out, "plan").at("ranks")[5]);
}

TEST(PlanCommand, AMeshThatCannotBeExitsWithTheArithmetic) {
  const auto done = plan(layout("7b_8.toml") + " --nproc 7 --machine h100");
  EXPECT_EQ(done.status, 2);
  EXPECT_THAT(done.err, HasSubstr("world size 7 is not divisible by tensor*context*pipeline = "
                                  "1*1*2 = 2"));
  EXPECT_EQ(plan(layout("7b_8.toml") + " --nproc 8 --rank 8 --machine h100").status, 2);
  EXPECT_EQ(plan(layout("7b_8.toml") + " --nproc 8 --memory 80X --machine h100").status, 2);
}

TEST(PlanCommand, SuggestsLayoutsThatFit) {
  const auto done = plan(layout("3b_8.toml") +
                         " --suggest --devices 4 --memory 40GiB --machine a100 --json"
                         " --set train.global_batch=16");
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  const auto& fitting = json.at("fitting");
  ASSERT_GE(fitting.size(), 1);
  double before = 0;
  for (const auto& s : fitting) {
    EXPECT_LE(s.at("bytes").get<double>(), 0.92 * (int64_t{40} << 30));
    EXPECT_GE(s.at("step_seconds").get<double>(), before);
    before = s.at("step_seconds");
    EXPECT_THAT(s.at("toml").get<std::string>(), HasSubstr("[parallel]\ntensor = "));
  }
  for (const auto& s : json.at("not_fitting"))
    EXPECT_THAT(s.at("why").get<std::string>(), HasSubstr("more than there is"));
}

class Layouts : public testing::TestWithParam<std::string> {};

TEST_P(Layouts, FitsInto80GiB) {
  const auto& name = GetParam();  // 7b_8
  const auto devices = std::stoll(name.substr(name.find('_') + 1));
  const auto done =
      plan(fmt::format("{} --nproc {} --machine h100 --json", layout(name + ".toml"), devices));
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  ASSERT_EQ(json.at("ranks").size(), devices);
  for (const auto& rank : json.at("ranks")) {
    EXPECT_LE(rank.at("total").get<double>(), 0.92 * (int64_t{80} << 30))
        << "rank " << rank.at("rank");
  }
}

INSTANTIATE_TEST_SUITE_P(Examples, Layouts,
                         testing::Values("3b_8", "3b_16", "3b_64", "7b_8", "7b_16", "7b_64",
                                         "32b_8", "32b_16", "32b_64", "72b_8", "72b_16", "72b_64"),
                         [](const auto& info) { return info.param; });

TEST(Examples, EveryLayoutIsPlannedAbove) {
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(kLayouts)) files += entry.is_regular_file();
  EXPECT_EQ(files, 12);
}

}  // namespace
}  // namespace triptych

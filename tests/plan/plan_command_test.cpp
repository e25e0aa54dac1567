// The command `plan` as users and scripts call it, and every layout of the examples.

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>

#include "base/files.h"
#include "base/format.h"
#include "base/json.h"
#include "support/paths.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kLayouts = fs::path(source_dir()) / "examples/qwen2_5_vl/layouts";

struct Outcome {
  int status = -1;
  std::string out, err;
};

Outcome plan(const std::string& words) {
  const Scratch folder;
  const auto out = folder / "out", err = folder / "err";
  const int status = std::system(
      fmt::format("{} plan {} > {} 2> {}", triptych_command(), words, out.string(), err.string())
          .c_str());
  return {WEXITSTATUS(status), read_file(out), read_file(err)};
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
                         " --suggest --devices 4 --memory 24GiB --machine a100 --json"
                         " --set train.global_batch=16");
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  const auto& fitting = json.at("fitting");
  ASSERT_GE(fitting.size(), 1);
  double before = 0;
  for (const auto& s : fitting) {
    EXPECT_LE(s.at("bytes").get<double>(), 0.92 * (int64_t{24} << 30));
    EXPECT_GE(s.at("step_seconds").get<double>(), before);
    before = s.at("step_seconds");
    EXPECT_THAT(s.at("toml").get<std::string>(), HasSubstr("[parallel]\ntensor = "));
  }
  const auto& others = json.at("not_fitting");
  ASSERT_GE(others.size(), 1);
  for (const auto& s : others)
    EXPECT_THAT(s.at("why").get<std::string>(), HasSubstr("more than there is"));
}

TEST(PlanCommand, SaysWhetherEveryRankFits) {
  const auto words = layout("7b_8.toml") + " --nproc 8 --machine h100 --memory ";
  const auto large = plan(words + "64GiB"), small = plan(words + "20GiB");
  EXPECT_EQ(large.status, 0) << large.err;
  EXPECT_THAT(large.out, HasSubstr("every rank fits into 64GiB"));
  EXPECT_EQ(small.status, 1);
  EXPECT_THAT(small.out, HasSubstr("rank 0 does not fit"));
}

TEST(PlanCommand, RefusesFlagsThatSayNothing) {
  const auto run = layout("3b_8.toml");
  const auto refused = [&](const std::string& words, const std::string& why) {
    const auto done = plan(run + " " + words);
    EXPECT_EQ(done.status, 2) << words;
    EXPECT_THAT(done.err, HasSubstr(why));
  };
  refused("--nproc 8 --devices 8", "--nproc beside --devices");
  refused("--suggest --rank 1", "--rank beside --suggest");
  refused("--suggest --explain", "--explain beside --suggest");
  refused("--calibrate --rank 0", "--calibrate beside --rank");
  refused("--calibrate --machine h100", "not --machine h100");
}

TEST(PlanCommand, ExplainsEveryTermOfTheStep) {
  const auto done = plan(layout("7b_8.toml") + " --nproc 8 --machine h100 --explain --json");
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  double sum = 0;
  for (const auto& term : json.at("terms"))
    sum += term.at("in_step").get<bool>() ? term.at("seconds").get<double>() : 0;
  const auto step = json.at("time").at("step_seconds").get<double>();
  EXPECT_NEAR(sum / step, 1, 1e-9);  // rounding alone
  EXPECT_GT(json.at("time").at("hfu"), json.at("time").at("mfu"));
}

// 12 devices on hosts of 8: "host" leaves one host half empty. Not the end of the search.
TEST(PlanCommand, HostsThatHoldUnequalPartsAreRefusedByName) {
  const auto words = layout("3b_8.toml") +
                     " --machine h100 --set parallel.zero_group=host --set train.global_batch=12 ";
  const auto one = plan(words + "--nproc 12");
  EXPECT_EQ(one.status, 2);
  EXPECT_THAT(one.err, HasSubstr("host 0 holds 8 and host 1 holds 4; each must hold as many"));
  const auto search = plan(words + "--suggest --devices 12 --json");
  ASSERT_LE(search.status, 1) << search.err;
  EXPECT_GT(parse_json(search.out, "plan").at("impossible"), 0);
}

// What is printed is what was planned: pasted into the run file it gives the same plan.
TEST(PlanCommand, APastedLayoutIsTheOneThatWasPlanned) {
  const auto words = " --devices 8 --machine h100 --json --set model.freeze=[]";
  const auto found = plan(layout("7b_8.toml") + words + " --suggest");
  ASSERT_EQ(found.status, 0) << found.err;
  const auto best = parse_json(found.out, "plan").at("fitting").at(0);
  const auto toml = best.at("toml").get<std::string>();
  EXPECT_THAT(toml, HasSubstr("vision_layers = \"auto\""));  // the file counts them by stage
  auto text = read_file(layout("7b_8.toml"));
  const auto begin = text.find("[parallel]"), end = text.find("[checkpoint]");
  text.replace(begin, end - begin, toml + "\n");
  const auto file = fs::temp_directory_path() / fmt::format("pasted_{}.toml", getpid());
  write_file_atomically(file, text);
  const auto again = plan(file.string() + words);
  fs::remove(file);
  ASSERT_EQ(again.status, 0) << again.err;
  const auto json = parse_json(again.out, "plan");
  int64_t most = 0;
  for (const auto& rank : json.at("ranks"))
    most = std::max({most, rank.at("total").get<int64_t>(), rank.at("start").get<int64_t>()});
  EXPECT_EQ(most, best.at("bytes").get<int64_t>());
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

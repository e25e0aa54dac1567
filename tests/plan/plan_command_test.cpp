// The command `plan` as users and scripts call it, and every layout of the examples.

#include "plan_command.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>

#include "base/json.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kLayouts = fs::path(source_dir()) / "examples/qwen2_5_vl/layouts";

std::string layout(const std::string& name) { return (kLayouts / name).string(); }

/// Every rank of 7B on 8 devices, with all that can be asked for; run once.
const Outcome& plan_of_7b() {
  static const auto done = plan(layout("7b_8.toml") + " --nproc 8 --machine h100 --json --explain");
  return done;
}

constexpr const char* kSmallConfig = R"({
  "model_type": "qwen2_5_vl", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
  "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 4096, "rms_norm_eps": 1e-6,
  "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
  "hidden_act": "silu", "tie_word_embeddings": false, "initializer_range": 0.02,
  "image_token_id": 4090, "video_token_id": 4091, "vision_start_token_id": 4092,
  "vision_end_token_id": 4093,
  "vision_config": {
    "depth": 4, "hidden_size": 128, "out_hidden_size": 256, "intermediate_size": 352,
    "num_heads": 4, "in_chans": 3, "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
    "fullatt_block_indexes": [1, 3], "tokens_per_second": 2, "temporal_patch_size": 2,
    "hidden_act": "silu"}})";

constexpr const char* kSmallRun = R"(
output = "run"
threads = 1
[model]
path = "model"
weights = "random"
[[data.train]]
path = "unused.jsonl"
[data]
max_length = 512
[train]
steps = 2
global_batch = 24
[parallel]
text_layers = "auto"
[checkpoint]
every = 1
)";

/// Plans of a model of 8 million parameters: what is asked for takes as long as starting.
class SmallPlan : public testing::Test {
 protected:
  SmallPlan() {
    fs::create_directories(folder_ / "model");
    write_file_atomically(folder_ / "model/config.json", kSmallConfig);
    write_file_atomically(file_, kSmallRun);
  }
  Scratch folder_;
  fs::path file_ = folder_ / "run.toml";
  std::string run_ = file_.string() + " ";
  std::string cache_ = "XDG_CACHE_HOME=" + (folder_ / "cache").string();
  fs::path rates_ = folder_ / "cache/triptych/calibration.json";
};

TEST(PlanCommand, JsonHasEveryRank) {
  const auto& done = plan_of_7b();
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
  const auto one = plan(layout("7b_8.toml") + " --nproc 8 --machine h100 --json --rank 5");
  ASSERT_EQ(one.status, 0) << one.err;
  const auto ranks = parse_json(one.out, "plan").at("ranks");
  ASSERT_EQ(ranks.size(), 1);
  EXPECT_EQ(ranks[0], parse_json(plan_of_7b().out, "plan").at("ranks")[5]);
}

TEST(PlanCommand, AMeshThatCannotBeExitsWithTheArithmetic) {
  const auto done = plan(layout("7b_8.toml") + " --nproc 7 --machine h100");
  EXPECT_EQ(done.status, 2);
  EXPECT_THAT(done.err, HasSubstr("world size 7 is not divisible by tensor*context*pipeline = "
                                  "1*1*2 = 2"));
  EXPECT_EQ(plan(layout("7b_8.toml") + " --nproc 8 --rank 8 --machine h100").status, 2);
  EXPECT_EQ(plan(layout("7b_8.toml") + " --nproc 8 --memory 80X --machine h100").status, 2);
}

TEST_F(SmallPlan, SuggestsLayoutsThatFit) {
  const auto done = plan(run_ + "--suggest --devices 4 --memory 130MiB --machine a100 --json");
  ASSERT_EQ(done.status, 0) << done.err;
  const auto json = parse_json(done.out, "plan");
  const auto& fitting = json.at("fitting");
  ASSERT_GE(fitting.size(), 1);
  double before = 0;
  for (const auto& s : fitting) {
    EXPECT_LE(s.at("bytes").get<double>(), 0.92 * (int64_t{130} << 20));
    EXPECT_GE(s.at("step_seconds").get<double>(), before);
    before = s.at("step_seconds");
    EXPECT_THAT(s.at("toml").get<std::string>(), HasSubstr("[parallel]\ntensor = "));
  }
  const auto& others = json.at("not_fitting");
  ASSERT_GE(others.size(), 1);
  for (const auto& s : others)
    EXPECT_THAT(s.at("why").get<std::string>(), HasSubstr("more than there is"));
}

// The embedding's gradient stays sparse where a stage has one micro-batch alone.
TEST_F(SmallPlan, HeadAndEmbeddingAreOneTensorOnTwoStages) {
  std::string tied = kSmallConfig;
  const std::string untied = "\"tie_word_embeddings\": false";
  tied.replace(tied.find(untied), untied.size(), "\"tie_word_embeddings\": true");
  write_file_atomically(folder_ / "model/config.json", tied);
  const auto done = plan(run_ + "--nproc 4 --set parallel.pipeline=4 --set train.global_batch=1");
  EXPECT_EQ(done.status, 0) << done.err;
}

TEST_F(SmallPlan, SaysWhetherEveryRankFits) {
  const auto words = run_ + "--nproc 2 --machine h100 --memory ";
  const auto large = plan(words + "1GiB"), small = plan(words + "20MiB");
  EXPECT_EQ(large.status, 0) << large.err;
  EXPECT_THAT(large.out, HasSubstr("every rank fits into 1GiB"));
  EXPECT_EQ(small.status, 1);
  EXPECT_THAT(small.out, HasSubstr("rank 0 does not fit"));
}

TEST_F(SmallPlan, RefusesFlagsThatSayNothing) {
  const auto refused = [&](const std::string& words, const std::string& why) {
    const auto done = plan(run_ + words);
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
  const auto& done = plan_of_7b();
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
TEST_F(SmallPlan, HostsThatHoldUnequalPartsAreRefusedByName) {
  const auto words = run_ + "--machine h100 --set parallel.zero_group=host ";
  const auto one = plan(words + "--nproc 12");
  EXPECT_EQ(one.status, 2);
  EXPECT_THAT(one.err, HasSubstr("host 0 holds 8 and host 1 holds 4; each must hold as many"));
  const auto search = plan(words + "--suggest --devices 12 --json");
  ASSERT_LE(search.status, 1) << search.err;
  EXPECT_GT(parse_json(search.out, "plan").at("impossible"), 0);
}

// What is printed is what was planned: pasted into the run file it gives the same plan.
TEST_F(SmallPlan, APastedLayoutIsTheOneThatWasPlanned) {
  const std::string words = "--devices 8 --machine h100 --json";
  const auto found =
      plan(run_ + words + " --suggest --set parallel.text_layers=[3,3] --set parallel.pipeline=2");
  ASSERT_EQ(found.status, 0) << found.err;
  const auto best = parse_json(found.out, "plan").at("fitting").at(0);
  const auto toml = best.at("toml").get<std::string>();
  EXPECT_THAT(toml, HasSubstr("text_layers = \"auto\""));  // the run counts them by stage
  auto text = read_file(file_);
  const auto begin = text.find("[parallel]"), end = text.find("[checkpoint]");
  text.replace(begin, end - begin, toml + "\n");
  write_file_atomically(file_, text);
  const auto again = plan(run_ + words);
  ASSERT_EQ(again.status, 0) << again.err;
  const auto json = parse_json(again.out, "plan");
  int64_t most = 0;
  for (const auto& rank : json.at("ranks"))
    most = std::max({most, rank.at("total").get<int64_t>(), rank.at("start").get<int64_t>()});
  EXPECT_EQ(most, best.at("bytes").get<int64_t>());
}

TEST_F(SmallPlan, SequenceWithoutTensorRanksDoesNothingAndSaysSo) {
  const auto words = run_ + "--nproc 2 --machine h100 --json --set parallel.sequence=";
  const auto with = plan(words + "true"), without = plan(words + "false");
  ASSERT_EQ(with.status, 0) << with.err;
  EXPECT_EQ(with.out, without.out);
  EXPECT_THAT(with.err, HasSubstr("parallel.sequence = true does nothing: it needs"));
  EXPECT_EQ(without.err, "");
}

TEST_F(SmallPlan, GoesByWhatCalibrateMeasured) {
  const auto measured = plan(run_ + "--nproc 2 --calibrate", cache_);
  ASSERT_EQ(measured.status, 0) << measured.err;
  EXPECT_THAT(measured.out, HasSubstr("bf16, 2 processes of 1 thread\n"));
  EXPECT_THAT(measured.out, HasSubstr("kept in " + rates_.string()));
  auto kept = read_json(rates_);
  auto& rates = kept.at("calibrations").at(0);
  for (const char* operation : {"all_reduce", "all_gather", "reduce_scatter", "all_to_all"})
    EXPECT_GT(rates.at("exchanges").at(operation).at("bytes_per_s"), 0) << operation;

  const auto words = run_ + "--nproc 2 --machine here --json";
  const auto time = parse_json(plan(words, cache_).out, "plan").at("time");
  EXPECT_THAT(time.at("machine").get<std::string>(), HasSubstr(" with 2 processes)"));
  // it is these rates that the plan goes by, and no others
  rates.at("peak_flop") = rates.at("peak_flop").get<double>() / 4;
  write_file_atomically(rates_, dump_json(kept));
  const auto slower = parse_json(plan(words, cache_).out, "plan").at("time");
  EXPECT_NEAR(slower.at("compute").get<double>() / time.at("compute").get<double>(), 4, 1e-6);
  // fp32 has not been calibrated
  const auto other = plan(words + " --set model.precision=fp32", cache_);
  EXPECT_EQ(parse_json(other.out, "plan").at("time").at("machine"), "here");
}

// Neither a plan nor a calibration, which takes half a minute before it would find out.
TEST_F(SmallPlan, SaysWhatToDoWithRatesThatItCannotRead) {
  fs::create_directories(rates_.parent_path());
  for (const char* text :
       {"{\"version\": 1, \"calib", "{\"version\": 0, \"calibrations\": []}", "[]"}) {
    write_file_atomically(rates_, text);
    for (const char* words : {"--nproc 1 --machine here", "--nproc 2 --calibrate"}) {
      const auto done = plan(run_ + words, cache_);
      EXPECT_EQ(done.status, 1) << words;
      EXPECT_THAT(done.err, HasSubstr(rates_.string() + ":")) << text;
      EXPECT_THAT(done.err, HasSubstr("delete the file and calibrate again")) << text;
    }
  }
}

class Layouts : public testing::TestWithParam<std::string> {};

TEST_P(Layouts, FitsInto80GiB) {
  const auto& name = GetParam();  // 7b_8
  const auto devices = std::stoll(name.substr(name.find('_') + 1));
  const auto done = name == "7b_8" ? plan_of_7b()
                                   : plan(fmt::format("{} --nproc {} --machine h100 --json",
                                                      layout(name + ".toml"), devices));
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

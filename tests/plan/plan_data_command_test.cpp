// `plan --data`: what it prints, for people and programs, and what it refuses.

#include <gmock/gmock.h>

#include "base/json.h"
#include "plan_command.h"
#include "planned_data.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kRun = R"(
output = "{0}/run"
threads = 1
[model]
path = "{0}/model"
weights = "random"
[[data.train]]
path = "{0}/train.jsonl"
[[data.train]]
path = "{0}/more.jsonl"
[data]
max_length = 512
[train]
steps = 100
global_batch = 8
)";

class PlanByData : public testing::Test {
 protected:
  PlanByData() {
    write_planned_run(folder_.path());
    write_planned_records(folder_ / "more.jsonl", {.pictures = false, .records = 60});
    write_file_atomically(file_, fmt::format(kRun, folder_.path().string()));
  }
  Json json(const std::string& words) const {
    const auto done = plan(run_ + words + " --machine h100 --json");
    EXPECT_EQ(done.status, 0) << done.err;
    return parse_json(done.out, "plan");
  }
  void replace_train(const std::string& text) const {
    fs::remove(folder_ / "train.jsonl");
    write_file_atomically(folder_ / "train.jsonl", text);
  }

  Scratch folder_;
  fs::path file_ = folder_ / "run.toml";
  std::string run_ = file_.string() + " ";
};

TEST_F(PlanByData, SaysWhatItWentBy) {
  const auto without = json("--nproc 2"), with = json("--nproc 2 --data --samples 100");
  EXPECT_FALSE(without.contains("data"));
  const auto& data = with.at("data");
  EXPECT_EQ(data.at("sources"), 2);
  EXPECT_EQ(data.at("records"), 300);
  EXPECT_GE(data.at("samples"), 100);
  EXPECT_EQ(data.at("rows"), data.at("steps").get<int64_t>() * 8);
  EXPECT_LE(data.at("longest_row"), 512);
  const auto tokens = data.at("tokens").get<double>(), rows = data.at("rows").get<double>();
  EXPECT_LE(tokens / rows, 512);
  EXPECT_GT(tokens / rows, 0.9 * 512);  // packed of samples that are far shorter
  EXPECT_GT(data.at("samples_a_row"), 3);
  EXPECT_GT(data.at("picture_share"), 0.05);
  EXPECT_LT(data.at("picture_share"), 0.5);
  // Segments of a sample each: less attention than rows of one sample have.
  EXPECT_LT(with.at("time").at("attention"), without.at("time").at("attention"));

  const auto text = plan(run_ + "--nproc 2 --data --samples 100 --machine h100");
  ASSERT_EQ(text.status, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("data: 2 sources of 300 records; "));
  EXPECT_THAT(text.out, HasSubstr(fmt::format(
                            "{} samples looked at, the first {}", data.at("samples").get<int64_t>(),
                            data.at("steps") == 1
                                ? "step"
                                : fmt::format("{} steps", data.at("steps").get<int64_t>()))));
  EXPECT_THAT(text.out, HasSubstr("% picture tokens"));
}

// No more than asked for, an epoch, or the run has; never less than a step.
TEST_F(PlanByData, LooksAtNoMoreThanItNeeds) {
  EXPECT_EQ(json("--data --samples 1").at("data").at("steps"), 1);
  EXPECT_EQ(json("--data --set train.steps=2").at("data").at("steps"), 2);
  const auto all = json("--data --samples 100000").at("data");
  EXPECT_GE(all.at("samples"), 300);
  EXPECT_LT(all.at("samples"), 600);
}

TEST_F(PlanByData, OneRankAndTermsAreThoseOfAll) {
  const std::string words = "--nproc 4 --set parallel.pipeline=2 --data --samples 50 ";
  const auto all = json(words + "--explain");
  double sum = 0;
  for (const auto& term : all.at("terms"))
    sum += term.at("in_step").get<bool>() ? term.at("seconds").get<double>() : 0;
  EXPECT_NEAR(sum / all.at("time").at("step_seconds").get<double>(), 1, 1e-9);  // rounding alone
  const auto one = json(words + "--rank 3");
  EXPECT_EQ(one.at("ranks").at(0), all.at("ranks").at(3));
  EXPECT_EQ(one.at("data"), all.at("data"));
}

TEST_F(PlanByData, SuggestsByData) {
  const auto found = json("--suggest --devices 2 --memory 1GiB --data --samples 50");
  EXPECT_GE(found.at("data").at("samples"), 50);
  const auto& best = found.at("fitting").at(0);
  auto text = read_file(file_);
  write_file_atomically(file_, text + best.at("toml").get<std::string>());
  int64_t most = 0;
  const auto again = json("--nproc 2 --data --samples 50");
  for (const auto& rank : again.at("ranks"))
    most = std::max({most, rank.at("total").get<int64_t>(), rank.at("start").get<int64_t>()});
  EXPECT_EQ(most, best.at("bytes").get<int64_t>());
}

TEST_F(PlanByData, RefusesWhatTrainWouldRefuse) {
  const auto refused = [&](int status, const std::string& words, const std::string& why) {
    const auto done = plan(run_ + words);
    EXPECT_EQ(done.status, status) << words;
    EXPECT_THAT(done.err, HasSubstr(why));
    EXPECT_EQ(done.out, "");
  };
  refused(2, "--samples 5", "--samples says how much of the run's data is looked at; add --data");
  refused(2, "--data --samples 0", "--samples");
  const auto gone = (folder_ / "gone").string();
  for (const std::string also : {"", " --suggest --memory 1GiB", " --calibrate"}) {
    refused(2, "--data --set data.train.1.path=" + gone + also, "data.train.1.path: " + gone);
    refused(2, "--data --set model.path=" + gone + " --set model.preset=qwen2_5_vl_3b" + also,
            "model.path: " + gone);
  }
  replace_train(R"({"messages": [{"role": "user", "content": "<image>?"}, )"
                R"({"role": "assistant", "content": "a"}], "images": ["none.png"]})"
                "\n");
  refused(1, "--data", "train.jsonl:1");
  const auto skipping = json("--data --set data.on_bad_sample=skip");
  EXPECT_EQ(skipping.at("data").at("skipped"), 1);
  EXPECT_EQ(skipping.at("data").at("picture_tokens"), 0);
}

// The header is all that is read: a picture without a body is as good.
TEST_F(PlanByData, DecodesNothing) {
  const auto whole = json("--data");
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    if (entry.path().extension() != ".png") continue;
    const auto bytes = read_file(entry.path());
    write_file_atomically(entry.path(), bytes.substr(0, 33));  // up to the end of IHDR
  }
  EXPECT_EQ(json("--data"), whole);
}

}  // namespace
}  // namespace triptych

#include "train/run_options.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/files.h"
#include "base/option_docs.h"
#include "support/paths.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

const std::vector<std::string> kLeast = {"output=out", "model.path=m", "train.steps=10",
                                         "data.train.0.path=d.jsonl"};

std::vector<std::string> with(std::vector<std::string> more) {
  more.insert(more.begin(), kLeast.begin(), kLeast.end());
  return more;
}

/// The TOML block of docs/spec/run_file.md.
std::string documented_run_file() {
  const std::string text = read_file(source_dir() + "/docs/spec/run_file.md");
  const size_t begin = text.find("```toml\n") + 8;
  return text.substr(begin, text.find("```", begin) - begin);
}

TEST(RunOptions, LeastRunFileIsEnough) {
  const ResolvedRun run = read_run_options({.assignments = kLeast});
  EXPECT_EQ(run.options.train.steps, 10);
  EXPECT_EQ(run.options.data.train.size(), 1u);
}

TEST(RunOptions, EveryDocumentedKeyIsRead) {
  RunOptions options;
  OptionOrigins origins;
  Problems problems;
  read_options_text(refer(options), documented_run_file(), "run_file.md", "/r", origins, problems);
  EXPECT_THAT(problems.messages(), IsEmpty());
  EXPECT_EQ(options.optimizer.lr, 1e-5);
  EXPECT_EQ(options.data.image_max_pixels, 1003520);
  ASSERT_TRUE(options.model.lora);
  // Nothing is declared that the document does not have: keys that it names in words are listed.
  std::vector<std::string> undocumented;
  for (const OptionLine& line : list_options(refer(options))) {
    if (!origins.contains(line.path)) undocumented.push_back(line.path);
  }
  EXPECT_THAT(undocumented,
              ElementsAre("data.train[0].repeat", "train.epochs", "diffusion.sample_prompts"));
}

TEST(RunOptions, DefaultsAreTheDocumentedValues) {
  // The document shows defaults except where it shows an example.
  const std::set<std::string> examples = {"output",
                                          "model.path",
                                          "model.freeze",
                                          "train.steps",
                                          "data.image_min_pixels",
                                          "data.image_max_pixels",
                                          "data.video_min_pixels",
                                          "data.video_max_pixels"};
  RunOptions options;
  OptionOrigins origins;
  Problems problems;
  read_options_text(refer(options), documented_run_file(), "run_file.md", "/r", origins, problems);
  for (const OptionLine& line : list_options(refer(options))) {
    const bool is_example = examples.contains(line.path) || line.path.starts_with("data.train[");
    EXPECT_TRUE(line.is_default || is_example) << line.path << " = " << value_text(line.value);
  }
}

TEST(RunOptions, ResolvedFileRepeatsTheRun) {
  const fs::path path = fs::temp_directory_path() / ("run_" + std::to_string(getpid()) + ".toml");
  const ResolvedRun first = read_run_options(
      {.assignments = with({"model.lora.rank=4", "parallel.text_layers=[[1,2],[3,4]]",
                            "recompute.policy=full", "recompute.text.layers=2"})});
  write_file_atomically(path, options_toml(refer(first.options)));
  const ResolvedRun second = read_run_options({.file = path});
  EXPECT_EQ(options_json(refer(second.options)), options_json(refer(first.options)));
  fs::remove(path);
}

TEST(RunOptions, PartsOfRecomputeInheritWhatTheyLeaveOut) {
  const RunOptions o =
      read_run_options({.assignments = with({"recompute.layers=7", "recompute.text.policy=full"})})
          .options;
  const RecomputeOptions text = o.recompute.of_part(o.recompute.text);
  EXPECT_EQ(text.policy, RecomputePolicy::kFull);
  EXPECT_EQ(std::get<int64_t>(text.layers), 7);
  EXPECT_EQ(o.recompute.of_part(o.recompute.vision).policy, RecomputePolicy::kNone);
}

struct Wrong {
  std::string set, message;
};
class WrongRun : public testing::TestWithParam<Wrong> {};

TEST_P(WrongRun, IsRefusedBeforeAnythingStarts) {
  EXPECT_THAT([&] { read_run_options({.assignments = with({GetParam().set})}); },
              ThrowsMessage<UsageError>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    CrossField, WrongRun,
    testing::Values(
        Wrong{"output=\"\"", "output is not set"},
        Wrong{"model.path=\"\"", "model: neither path nor preset is set"},
        Wrong{"train.steps=0", "train: neither steps nor epochs is set"},
        Wrong{"data.train=[]", "data.train: no source of training samples"},
        Wrong{"train.micro_batch=3",
              "train.global_batch (32) must be a multiple of train.micro_batch (3)"},
        Wrong{"data.video_min_frames=900", "data.video_min_frames (900) must not be above"},
        Wrong{"schedule.min_lr=1", "schedule.min_lr (1) must not be above optimizer.lr (1e-05)"},
        Wrong{"parallel.order=[\"data\",\"data\"]",
              "parallel.order must name tensor, context, data"},
        Wrong{"profile.windows=[[3,2]]", "profile.windows[0] must be [first, end)"},
        Wrong{"device=npu", "device = \"npu\" needs backend.library"}));

INSTANTIATE_TEST_SUITE_P(
    NotBuiltYet, WrongRun,
    testing::Values(
        Wrong{"task=diffusion", "task = \"diffusion\": video generation is not in this build yet"},
        Wrong{"model.preset=internvl2_8b", "model.preset = \"internvl2_8b\": InternVL models"},
        Wrong{"data.train.0.format=internvl", "data: format = \"internvl\": this format is not"}));

TEST(RunOptions, BalancesThatContradictOtherSettingsAreRefused) {
  EXPECT_THAT(
      [] {
        read_run_options(
            {.assignments = with({"parallel.balance_vision=data", "parallel.vision_context=dsp"})});
      },
      ThrowsMessage<UsageError>(
          HasSubstr("shares whole pictures, parallel.vision_context = \"dsp\" cuts them")));
  EXPECT_THAT(
      [] {
        read_run_options(
            {.assignments = with({"parallel.balance_samples=true", "train.micro_batch=2",
                                  "train.global_batch=4", "train.loss_average=micro_batch"})});
      },
      ThrowsMessage<UsageError>(
          HasSubstr("parallel.balance_samples puts other rows together in a micro-batch")));
}

TEST(RunOptions, SupportedSettingsPass) {
  EXPECT_NO_THROW(read_run_options(
      {.assignments = with({"parallel.zero=0", "recompute.policy=full", "recompute.layers=3",
                            "recompute.text.policy=selective", "recompute.offload=true",
                            "parallel.balance_vision=data", "parallel.balance_samples=true",
                            "device=cuda", "train.epochs=1.5"})}));
}

TEST(RunOptions, ReferencePageIsUpToDate) {
  const std::string page = read_file(source_dir() + "/docs/options.md");
  EXPECT_NE(page.find(options_markdown(run_schema())), std::string::npos)
      << "write it again: build/release/triptych train --options --markdown > docs/options.md";
}

/// Every run file under examples/.
std::vector<std::string> example_files() {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(source_dir() + "/examples")) {
    if (entry.path().extension() == ".toml") files.push_back(entry.path().string());
  }
  std::ranges::sort(files);
  return files;
}

class Example : public testing::TestWithParam<std::string> {};

// Whether its model and adapters fit a model folder is checked by runs_test, with a dry run.
TEST_P(Example, IsReadWithoutAProblem) {
  const ResolvedRun run = read_run_options({.file = GetParam()});
  EXPECT_FALSE(run.options.output.empty());
  EXPECT_FALSE(run.options.model.path.empty());
}

TEST_P(Example, WithAnUnknownKeyIsRefused) {
  const fs::path path =
      fs::temp_directory_path() / ("example_" + std::to_string(getpid()) + ".toml");
  write_file_atomically(path, read_file(GetParam()) + "\nevrey = 3\n");
  EXPECT_THROW(read_run_options({.file = path}), UsageError);
  fs::remove(path);
}

INSTANTIATE_TEST_SUITE_P(RunFiles, Example, testing::ValuesIn(example_files()),
                         [](const auto& file) {
                           std::string name = fs::path(file.param).stem().string();
                           return fs::path(file.param).parent_path().filename().string() + "_" +
                                  name;
                         });

TEST(Examples, ThereIsOneForEverySizeAndWayToTrain) {
  for (const char* size : {"3b", "7b", "32b", "72b"}) {
    for (const char* way : {"full", "frozen_vit", "lora"}) {
      const auto name = std::string(size) + "_" + way;
      const auto file = fs::path(source_dir() + "/examples/qwen2_5_vl") / (name + ".toml");
      const RunOptions run = read_run_options({.file = file}).options;
      EXPECT_EQ(run.model.preset, std::string("qwen2_5_vl_") + size) << name;
      EXPECT_EQ(run.model.lora.has_value(), std::string(way) == "lora") << name;
      EXPECT_EQ(run.model.freeze.empty(), std::string(way) == "full") << name;
    }
  }
}

}  // namespace
}  // namespace triptych

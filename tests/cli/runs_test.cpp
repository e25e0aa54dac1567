// Whole runs of the command on the quickstart's small model: what a user does, and what happens to
// a run that is stopped, killed, or given bad input.
//
//   runs_test FOLDER   a folder made by quickstart_data

#include <gmock/gmock.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>

#include "base/json.h"
#include "command_runs.h"
#include "models/qwen2_5_vl/options.h"
#include "support/paths.h"

namespace triptych {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Tensors of a safetensors file as bytes, read here by hand.
std::map<std::string, std::string> tensors_of(const fs::path& file) {
  const auto bytes = read_file(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  std::map<std::string, std::string> tensors;
  const auto json = parse_json(bytes.substr(8, header), file.string());
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    const auto begin = entry["data_offsets"][0].get<size_t>(),
               end = entry["data_offsets"][1].get<size_t>();
    tensors[name] = bytes.substr(8 + header + begin, end - begin);
  }
  return tensors;
}

class Runs : public CommandRuns {
 protected:
  fs::path run_file(const std::string& name, const std::string& more = "",
                    const std::string& model_more = "weights = \"random\"") const {
    return write_run(name, folder_ / name, model_more, "steps = 6\nglobal_batch = 4",
                     "[checkpoint]\nevery = 2\n[log]\nevery = 1\n" + more);
  }

  std::vector<Json> rows(const std::string& name) const {
    std::vector<Json> found;
    std::ifstream file(folder_ / name / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) found.push_back(parse_json(line, name));
    return found;
  }
  /// The last validation's loss; 0: there was none.
  double validation(const std::string& name) const {
    double loss = 0;
    for (const auto& row : rows(name)) loss = row.value("validation_loss", loss);
    return loss;
  }
  std::string weights(const std::string& name) const {
    return read_file(folder_ / name / "final/model.safetensors");
  }
  std::string train(const fs::path& file, const std::string& more = "") const {
    const auto outcome = run(fmt::format("train {} {}", file.string(), more));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.err;
  }

  /// The model folder with 4 vision heads for its 3, which 2 and 4 tensor ranks can share.
  fs::path model_with_even_heads() const {
    const auto copy = folder_ / "even";
    if (fs::exists(copy)) return copy;
    fs::copy(made / "model", copy, fs::copy_options::recursive);
    auto config = read_json(copy / "config.json");
    config["vision_config"]["num_heads"] = 4;
    write_file_atomically(copy / "config.json", dump_json(config, 2));
    return copy;
  }

  /// A copy of the untrained model folder with weights, and its path.
  fs::path folder_with_weights(const std::string& precision = "fp32") const {
    const auto name = "base_" + precision;
    train(run_file(name, "", fmt::format("weights = \"random\"\nprecision = \"{}\"", precision)),
          "--set train.steps=1 --set optimizer.lr=0");
    return folder_ / name / "final";
  }
};

/// Losses of the steps, in order.
std::vector<double> losses(const std::vector<Json>& rows) {
  std::vector<double> found;
  for (const auto& row : rows) {
    if (row.contains("loss")) found.push_back(row["loss"].get<double>());
  }
  return found;
}

TEST_F(Runs, LeavesMetricsCheckpointsAndAHubFolder) {
  train(run_file("a"));
  ASSERT_EQ(losses(rows("a")).size(), 6u);
  EXPECT_GT(losses(rows("a")).front(), losses(rows("a")).back());
  for (const char* file :
       {"final/config.json", "final/tokenizer.json", "final/model.safetensors", "run.toml",
        "log.txt", "checkpoints/latest", "checkpoints/step_00000006/manifest.json"})
    EXPECT_TRUE(fs::exists(folder_ / "a" / file)) << file;
  // The same run again has the same bits.
  train(run_file("b"));
  EXPECT_TRUE(weights("a") == weights("b"));
  EXPECT_EQ(losses(rows("a")), losses(rows("b")));
}

TEST_F(Runs, RefusesAFolderThatHasARun) {
  const auto file = run_file("a");
  train(file);
  const auto before = weights("a");
  const auto again = run(fmt::format("train {} --set checkpoint.resume=none", file.string()));
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("--overwrite"));
  EXPECT_TRUE(weights("a") == before);
  train(file, "--set checkpoint.resume=none --overwrite");
  EXPECT_EQ(losses(rows("a")).size(), 6u);
}

TEST_F(Runs, GoesOnBitByBit) {
  train(run_file("whole"));
  const auto file = run_file("parts");
  train(file, "--set train.steps=4");
  train(file);
  EXPECT_EQ(losses(rows("whole")), losses(rows("parts")));
  EXPECT_TRUE(weights("whole") == weights("parts"));
}

// More steps than any test takes: such a run ends by a signal.
constexpr const char* kEndless = " --set train.steps=1000000";

TEST_F(Runs, SignalSavesAndEndsWith75) {
  const auto file = run_file("stopped");
  const auto outcome = run(fmt::format("train {}", file.string()) + kEndless,
                           fmt::format("{{}} & pid=$!; while kill -0 $pid && ! grep -qs step "
                                       "{}/stopped/metrics.jsonl; do sleep 0.02; "
                                       "done; kill -TERM $pid; wait $pid",
                                       folder_.string()));
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  const auto before = losses(rows("stopped")).size();
  ASSERT_GT(before, 0u);
  const auto steps = fmt::format(" --set train.steps={}", before + 5);
  const auto said = train(file, steps);
  EXPECT_THAT(said, HasSubstr(fmt::format("going on from step {} ", before)));
  train(run_file("whole"), steps);
  EXPECT_EQ(losses(rows("whole")), losses(rows("stopped")));
  EXPECT_TRUE(weights("whole") == weights("stopped"));
}

TEST_F(Runs, KilledAtAnyInstantLosesNoCheckpoint) {
  const auto file = run_file("killed");
  const auto metrics = folder_ / "killed/metrics.jsonl";
  const auto lines = [&] { return std::ranges::count(read_file(metrics), '\n'); };
  int64_t rows_before = 0;
  // Rows further on than the kill before, and then a part of a step: computing, writing the row,
  // writing the checkpoint, its rename.
  for (const auto& [more, seconds] : std::vector<std::pair<int, double>>{
           {4, 0}, {5, 0.004}, {7, 0.009}, {4, 0.015}, {6, 0.022}, {5, 0.031}}) {
    const auto outcome =
        run(fmt::format("train {} --set checkpoint.every=1", file.string()) + kEndless,
            fmt::format("{{}} & pid=$!; while kill -0 $pid && "
                        "[ $(cat {} 2>/dev/null | wc -l) -lt {} ]; do sleep 0.005; done; "
                        "sleep {}; kill -KILL $pid; wait $pid",
                        metrics.string(), rows_before + more, seconds));
    ASSERT_EQ(outcome.status, 128 + SIGKILL) << outcome.err;
    if (rows_before > 0) EXPECT_THAT(outcome.err, HasSubstr("going on from step "));
    ASSERT_TRUE(fs::exists(folder_ / "killed/checkpoints/latest"));
    rows_before = lines();
  }
  const auto steps = fmt::format(" --set train.steps={}", rows_before + 5);
  EXPECT_THAT(train(file, steps), HasSubstr("going on from step "));
  train(run_file("whole"), steps);
  EXPECT_EQ(losses(rows("whole")), losses(rows("killed")));
  EXPECT_TRUE(weights("whole") == weights("killed"));
}

TEST_F(Runs, TwoProcessesComputeWhatOneDoes) {
  const std::string fp32 = "weights = \"random\"\nprecision = \"fp32\"";
  train(run_file("one", "", fp32));
  train(run_file("two", "", fp32), "--nproc 2");
  const auto one = losses(rows("one")), two = losses(rows("two"));
  ASSERT_EQ(one.size(), two.size());
  // The sums over four micro-batches are taken in another order.
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5) << "step " << i + 1;

  // And a run of two processes goes on as one of one.
  const auto file = run_file("changed", "", fp32);
  train(file, "--nproc 2 --set train.steps=4");
  train(file);
  const auto changed = losses(rows("changed"));
  ASSERT_EQ(changed.size(), one.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], changed[i], 1e-5);
}

// Data ranks order a step's samples by cost and encode each other's pictures, keeping less for
// backward: losses, validation and a resumed run are those of one process that does nothing of it.
TEST_F(Runs, DataRanksShareSamplesAndPictures) {
  const std::string fp32 = "weights = \"random\"\nprecision = \"fp32\"";
  const auto validated = fmt::format(
      " --set data.validation.0.path={}/data/held_out.jsonl --set train.validate_every=6",
      made.string());
  const std::string shared =
      " --nproc 2 --set parallel.balance_vision=data --set parallel.balance_samples=true"
      " --set recompute.policy=full --set recompute.method=uniform --set recompute.layers=2"
      " --set recompute.offload=true --set recompute.offload_min_bytes=64";
  train(run_file("one", "", fp32), validated);
  const auto file = run_file("two", "", fp32);
  train(file, validated + shared + " --set train.steps=4");
  train(file, validated + shared);
  const auto one = losses(rows("one")), two = losses(rows("two"));
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5) << "step " << i + 1;
  EXPECT_GT(validation("one"), 0);
  EXPECT_NEAR(validation("one"), validation("two"), 1e-5);
}

// Tensor ranks read, train and save parts; files and losses are those of one process.
TEST_F(Runs, TensorRanksComputeWhatOneProcessDoes) {
  const auto model = model_with_even_heads();
  const std::string fp32 = "weights = \"random\"\nprecision = \"fp32\"";
  const auto layout = fmt::format(
      " --set model.path={} --set data.validation.0.path={}/data/held_out.jsonl"
      " --set train.validate_every=6",
      model.string(), made.string());
  const auto split = layout + " --nproc 2 --set parallel.tensor=2 --set parallel.sequence=true";
  train(run_file("one", "", fp32), layout);
  train(run_file("two", "", fp32), split);
  const auto one = losses(rows("one")), two = losses(rows("two"));
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5) << "step " << i + 1;
  EXPECT_GT(validation("one"), 0);
  EXPECT_NEAR(validation("one"), validation("two"), 1e-5);
  const auto whole = tensors_of(folder_ / "one/final/model.safetensors"),
             gathered = tensors_of(folder_ / "two/final/model.safetensors");
  ASSERT_EQ(whole.size(), gathered.size());
  for (const auto& [name, bytes] : whole) EXPECT_EQ(bytes.size(), gathered.at(name).size()) << name;
}

// Context ranks share one sample's tokens and its pictures.
TEST_F(Runs, ContextRanksComputeWhatOneProcessDoes) {
  const auto model = model_with_even_heads();
  const std::string fp32 = "weights = \"random\"\nprecision = \"fp32\"";
  const auto settings = " --set train.steps=4 --set model.path=" + model.string();
  train(run_file("one", "", fp32), settings);
  const auto one = losses(rows("one"));
  const std::string context = " --nproc 2 --set parallel.context=2";
  const std::vector<std::string> layouts = {
      context, context + " --set parallel.context_algorithm=ring --set parallel.vision_context=dsp",
      " --nproc 4 --set parallel.context=4 --set parallel.context_algorithm=hybrid "
      "--set parallel.ulysses_degree=2"};
  for (size_t i = 0; i < layouts.size(); ++i) {
    const auto name = fmt::format("split_{}", i);
    train(run_file(name, "", fp32), settings + layouts[i]);
    const auto split = losses(rows(name));
    ASSERT_EQ(one.size(), split.size());
    for (size_t s = 0; s < one.size(); ++s)
      EXPECT_NEAR(one[s], split[s], 1e-5) << layouts[i] << ", step " << s + 1;
  }
}

// A checkpoint of any layout is taken over bit by bit by any other, and the run goes on as it would
// have.
class CheckpointsOfLayouts : public Runs {
 protected:
  /// Each goes on where the one before it ended.
  void expect_travel(const std::vector<std::string>& layouts, const std::string& precision,
                     const std::vector<size_t>& starts) {
    const auto model = model_with_even_heads();
    const auto settings = " --set train.steps=4 --set model.path=" + model.string();
    const auto random = "weights = \"random\"\nprecision = \"" + precision + "\"";
    train(run_file("whole", "", random), " --set train.steps=6 --set model.path=" + model.string());
    for (const size_t from : starts) {
      const size_t to = (from + 1) % layouts.size();
      const auto name = fmt::format("from_{}", from);
      const auto file = run_file(name, "", random);
      train(file, settings + layouts[from]);
      const auto saved = weights(name);
      train(file, settings + layouts[to]);  // nothing to do but to write final/ again
      EXPECT_TRUE(weights(name) == saved) << layouts[from] << " ->" << layouts[to];
      train(file, settings + layouts[to] + " --set train.steps=6");
      const auto curve = losses(rows(name)), whole = losses(rows("whole"));
      ASSERT_EQ(curve.size(), 6u);
      // bf16 rounds partial sums of other lengths
      const double bound = precision == "fp32" ? 1e-5 : 0.02;
      for (size_t i = 0; i < 6; ++i)
        EXPECT_NEAR(curve[i], whole[i], bound)
            << layouts[from] << " ->" << layouts[to] << ", " << i;
    }
  }

  const std::vector<std::string> cut_ = {
      "", " --nproc 2 --set parallel.tensor=2 --set parallel.sequence=true",
      " --nproc 2 --set parallel.context=2 --set parallel.context_algorithm=ring",
      " --nproc 4 --set parallel.tensor=2 --set parallel.pipeline=2"};
  const std::vector<std::string> sharded_ = {
      "", " --nproc 2 --set parallel.zero=3", " --nproc 2 --set parallel.zero=2",
      " --nproc 4 --set parallel.zero=3 --set parallel.pipeline=2",
      " --nproc 4 --set parallel.zero=3 --set parallel.tensor=2 --set parallel.sequence=true"};
};

TEST_F(CheckpointsOfLayouts, GoFromCutToCut) { expect_travel(cut_, "fp32", {0, 1, 2, 3}); }
TEST_F(CheckpointsOfLayouts, GoFromCutToCutInBf16) { expect_travel(cut_, "bf16", {1}); }
TEST_F(CheckpointsOfLayouts, GoFromShardsToShards) {
  expect_travel(sharded_, "fp32", {0, 1, 2, 3, 4});
}
TEST_F(CheckpointsOfLayouts, GoFromShardsToShardsInBf16) {
  expect_travel(sharded_, "bf16", {1, 3});
}

TEST_F(Runs, AdaptersOfTensorRanksAreOneFile) {
  const auto model = model_with_even_heads();
  train(run_file("base", "", "weights = \"random\"\nprecision = \"fp32\""),
        "--set train.steps=1 --set model.path=" + model.string());
  const std::string lora =
      "precision = \"fp32\"\n[model.lora]\nrank = 4\nalpha = 16\ndropout = 0.1";
  const auto settings = "--set model.path=" + (folder_ / "base/final").string();
  train(run_file("one", "", lora), settings);
  const auto file = run_file("two", "", lora);
  const auto split = settings + " --nproc 2 --set parallel.tensor=2 --set parallel.sequence=true";
  train(file, split + " --set train.steps=4");
  train(file, split);
  const auto one = losses(rows("one")), two = losses(rows("two"));
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5) << "step " << i + 1;
  const auto whole = tensors_of(folder_ / "one/final/adapter_model.safetensors"),
             gathered = tensors_of(folder_ / "two/final/adapter_model.safetensors");
  ASSERT_EQ(whole.size(), gathered.size());
  for (const auto& [name, bytes] : whole) EXPECT_EQ(bytes.size(), gathered.at(name).size()) << name;
}

// All broken rules at once, with the arithmetic, and nothing is started.
TEST_F(Runs, LayoutThatCannotBeIsRefusedBeforeAnythingStarts) {
  const auto file = run_file("never");
  const auto outcome = run(fmt::format(
      "train {} --nproc 4 --set parallel.tensor=8 --set train.global_batch=6 --set model.path={}",
      file.string(), model_with_even_heads().string()));
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(
      outcome.err,
      AllOf(HasSubstr("world size 4 is not divisible by tensor*context*pipeline = 8*1*1 = 8"),
            HasSubstr("vision heads 4 not divisible by tensor 8; allowed: 1, 2, 4"),
            HasSubstr("text heads 4 not divisible by tensor 8")));
  EXPECT_FALSE(fs::exists(folder_ / "never"));
  const auto context =
      run(fmt::format("train {} --nproc 8 --set parallel.context=8 --set model.path={}",
                      file.string(), model_with_even_heads().string()));
  EXPECT_EQ(context.status, 2);
  EXPECT_THAT(context.err, HasSubstr("ulysses degree 8 exceeds the 4 query heads of the text model "
                                     "on a rank (4 heads / tensor 1)"));
  const auto degree = run(fmt::format(
      "train {} --nproc 8 --set parallel.context=8 --set parallel.context_algorithm=hybrid --set "
      "parallel.ulysses_degree=3 --set model.path={}",
      file.string(), model_with_even_heads().string()));
  EXPECT_EQ(degree.status, 2);
  EXPECT_THAT(degree.err, HasSubstr("context 8 is not divisible by ulysses_degree 3"));
  const auto batch =
      run(fmt::format("train {} --nproc 4 --set train.global_batch=6", file.string()));
  EXPECT_EQ(batch.status, 2);
  EXPECT_THAT(batch.err, HasSubstr("6"));
}

TEST_F(Runs, AdaptersAreTrainedSavedAndMerged) {
  const auto base = folder_with_weights();
  const std::string model = "precision = \"fp32\"\n[model.lora]\nrank = 4\nalpha = 16";
  train(run_file("lora", "", model),
        fmt::format("--set model.path={} --set optimizer.lr=1e-2", base.string()));
  const auto adapter = folder_ / "lora/final";
  EXPECT_TRUE(fs::exists(adapter / "adapter_model.safetensors"));
  const auto config = read_json(adapter / "adapter_config.json");
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["peft_type"], "LORA");
  EXPECT_LT(losses(rows("lora")).back(), losses(rows("lora")).front());

  const auto merged = folder_ / "merged";
  const auto exported = run(fmt::format("export {} --model {} --output {}", adapter.string(),
                                        base.string(), merged.string()));
  ASSERT_EQ(exported.status, 0) << exported.err;
  const auto evaluate = [&](const std::string& what) {
    const auto outcome =
        run(fmt::format("evaluate {} {}/data/held_out.jsonl --limit 5 --json "
                        "--max-new-tokens 4 --threads 1",
                        what, made.string()));
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return parse_json(outcome.out, "evaluate");
  };
  const auto with_adapter = evaluate(base.string() + " --adapter " + adapter.string());
  const auto with_merged = evaluate(merged.string());
  const auto without = evaluate(base.string());
  // W x + s B A x in fp32 against (W + s B A) x: rounding alone.
  EXPECT_NEAR(with_adapter["loss"].get<double>(), with_merged["loss"].get<double>(), 1e-4);
  EXPECT_GT(std::abs(with_adapter["loss"].get<double>() - without["loss"].get<double>()), 1e-2);
  EXPECT_EQ(with_adapter["answers"].size(), 5u);
}

TEST_F(Runs, AdaptersBesideFrozenPartsAreReadAgain) {
  const auto base = folder_with_weights();
  // The vision tower has layers of these names too; they are frozen and get no adapter.
  train(run_file("lora", "",
                 "freeze = [\"vision\"]\n[model.lora]\nrank = 2\n"
                 "targets = [\"q_proj\", \"gate_proj\"]"),
        "--set train.steps=2 --set model.path=" + base.string());
  const auto adapter = folder_ / "lora/final";
  for (const auto& [name, bytes] : tensors_of(adapter / "adapter_model.safetensors"))
    EXPECT_THAT(name, Not(HasSubstr("visual")));
  const auto excluded = read_json(adapter / "adapter_config.json")["exclude_modules"];
  EXPECT_THAT(excluded.dump(), HasSubstr("\"model.visual.blocks.0.mlp.gate_proj\""));
  EXPECT_THAT(excluded.dump(), Not(HasSubstr("language_model")));
  const auto answered = run(fmt::format("generate {} --adapter {} --prompt a --max-new-tokens 1",
                                        base.string(), adapter.string()));
  EXPECT_EQ(answered.status, 0) << answered.err;
  const auto exported =
      run(fmt::format("export {} --output {}/merged", adapter.string(), folder_.string()));
  EXPECT_EQ(exported.status, 0) << exported.err;
}

TEST_F(Runs, AFinishedRunStartedAgainRepeatsNoRow) {
  const auto file = run_file(
      "a", fmt::format("[[data.validation]]\npath = \"{}/data/held_out.jsonl\"", made.string()));
  train(file, "--set train.validate_every=3 --set train.steps=3");
  const auto before = read_file(folder_ / "a/metrics.jsonl");
  train(file, "--set train.validate_every=3 --set train.steps=3");
  EXPECT_EQ(read_file(folder_ / "a/metrics.jsonl"), before);
}

TEST_F(Runs, FrozenPartsStayByteForByte) {
  const auto base = folder_with_weights();
  train(run_file("frozen", "", "precision = \"bf16\"\nfreeze = [\"vision\", \"projector\"]"),
        "--set model.path=" + base.string());
  const auto before = tensors_of(base / "model.safetensors"),
             after = tensors_of(folder_ / "frozen/final/model.safetensors");
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, bytes] : before) {
    EXPECT_EQ(after.at(name) == bytes, name.starts_with("visual.")) << name;
  }
}

TEST_F(Runs, NothingTrainedLeavesTheFolderByteForByte) {
  for (const std::string precision : {"bf16", "fp32"}) {
    const auto base = folder_with_weights(precision);
    train(run_file("same_" + precision, "", fmt::format("precision = \"{}\"", precision)),
          "--set train.steps=1 --set optimizer.lr=0 --set model.path=" + base.string());
    for (const auto& file : fs::directory_iterator(base)) {
      const auto name = file.path().filename();
      EXPECT_TRUE(read_file(folder_ / ("same_" + precision) / "final" / name) ==
                  read_file(file.path()))
          << precision << " " << name;
    }
  }
}

TEST_F(Runs, AnswersAloneOnStandardOutput) {
  const auto base = folder_with_weights();
  const auto words = fmt::format(
      "generate {} --image {}/data/held_out/00000.jpg --prompt 'Which shape is it?' "
      "--max-new-tokens 5 --threads 1",
      base.string(), made.string());
  const auto first = run(words), second = run(words);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(std::ranges::count(first.out, '\n'), 1);
  const auto sampled = run(words + " --temperature 5 --seed 3"),
             again = run(words + " --temperature 5 --seed 3"),
             other = run(words + " --temperature 5 --seed 4");
  EXPECT_EQ(sampled.out, again.out);
  EXPECT_NE(sampled.out, other.out);
}

TEST_F(Runs, LossThatIsNotFiniteStopsWithItsPlace) {
  const auto outcome = run(fmt::format(
      "train {} --set optimizer.lr=1e30 --set optimizer.clip_norm=0", run_file("inf").string()));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("not finite"), HasSubstr("the output of")));
}

// The run's own figures say what it takes; a bit less of it is refused with the place.
TEST_F(Runs, OutOfMemorySaysWhatHoldsIt) {
  train(run_file("whole"), "--set train.steps=2");
  int64_t parameters = 0, peak = 0;
  for (const auto& row : rows("whole")) {
    peak = std::max(peak, row["tensor_peak_bytes"].get<int64_t>());
    parameters = row["tensor_peak_parameter_bytes"].get<int64_t>();
    int64_t sum = 0;
    for (const auto& [key, value] : row.items())
      if (key.starts_with("tensor_peak_") && key != "tensor_peak_bytes")
        sum += value.get<int64_t>();
    EXPECT_EQ(sum, row["tensor_peak_bytes"].get<int64_t>());
  }
  // bf16 weights: as many bytes as the saved folder's tensors.
  int64_t saved = 0;
  for (const auto& [name, bytes] : tensors_of(folder_ / "whole/final/model.safetensors"))
    saved += static_cast<int64_t>(bytes.size());
  EXPECT_EQ(parameters, saved);

  const auto limit = fmt::format("TRIPTYCH_MEMORY_LIMIT={} {{}}", peak - 100000);
  const auto outcome =
      run(fmt::format("train {} --set train.steps=2", run_file("short").string()), limit);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("error: out of memory: rank 0, step "), HasSubstr(" asked for: "),
                    HasSubstr("  parameter\n"), HasSubstr("  optimizer_state\n"),
                    HasSubstr("activation of "), HasSubstr("what would help:"),
                    HasSubstr("recompute.policy = \"full\""),
                    HasSubstr("the plan of this rank, for rows of "), HasSubstr("  in all\n")));
  EXPECT_EQ(run("completion bash", "TRIPTYCH_MEMORY_LIMIT=much {}").status, 2);
}

TEST_F(Runs, BadOptionsStartNothing) {
  const auto file = run_file("bad").string();
  struct Case {
    const char *words, *said;
  };
  for (const auto& [words, said] :
       std::vector<Case>{{"--set train.stesp=3", "train.steps"},
                         {"--set train.steps=many", "train.steps"},
                         {"--set train.steps=-1", "train.steps"},
                         {"--set model.precision=fp16", "fp32, bf16"},
                         {"--set model.path=/nowhere", "/nowhere"},
                         {"--nrpoc 2", "--nproc"},
                         {"--set model.freeze='[\"visoin\"]'", "nearest: vision"}}) {
    const auto outcome = run(fmt::format("train {} {}", file, words));
    EXPECT_NE(outcome.status, 0) << words;
    EXPECT_THAT(outcome.err, HasSubstr(said)) << words;
    EXPECT_FALSE(fs::exists(folder_ / "bad/checkpoints")) << words;
  }
}

TEST_F(Runs, BrokenModelFoldersAreRefusedBeforeTraining) {
  const auto base = folder_with_weights();
  const auto refused = [&](const std::string& what, const auto& breaking) {
    const auto broken = folder_ / "broken";
    fs::remove_all(broken);
    fs::copy(base, broken);
    breaking(broken);
    const auto outcome = run(fmt::format("train {} --set model.path={}",
                                         run_file("never", "", "").string(), broken.string()));
    EXPECT_EQ(outcome.status, 1) << what;
    EXPECT_THAT(outcome.err, HasSubstr(what));
    EXPECT_FALSE(fs::exists(folder_ / "never/checkpoints")) << what;
  };
  refused("model.safetensors", [](const fs::path& folder) {
    fs::resize_file(folder / "model.safetensors", fs::file_size(folder / "model.safetensors") / 2);
  });
  refused("model.safetensors",
          [](const fs::path& folder) { fs::remove(folder / "model.safetensors"); });
  refused("tokenizer", [](const fs::path& folder) {
    for (const char* file : {"tokenizer.json", "vocab.json", "merges.txt"})
      fs::remove(folder / file);
  });
  refused("mlp.down_proj.weight", [](const fs::path& folder) {
    auto config = read_json(folder / "config.json");
    config["intermediate_size"] = 400;
    write_file_atomically(folder / "config.json", dump_json(config));
  });
  refused("model_type", [](const fs::path& folder) {
    auto config = read_json(folder / "config.json");
    config["model_type"] = "llama";
    write_file_atomically(folder / "config.json", dump_json(config));
  });
}

TEST_F(Runs, BadRecordsStopOrAreSkippedAsAsked) {
  const auto good = [&](int i) {
    return fmt::format(
        R"({{"image":"{}/data/train/{:05}.jpg","conversations":[)"
        R"({{"from":"human","value":"<image>\nWhich?"}},{{"from":"gpt","value":"a"}}]}})"
        "\n",
        made.string(), i);
  };
  std::string records;
  for (int i = 0; i < 8; ++i) records += good(i);
  const auto picture = folder_ / "cut.jpg";
  const auto jpeg = read_file(made / "data/train/00000.jpg");
  write_file_atomically(picture, jpeg.substr(0, 300));
  records += R"({"image":"cut.jpg","conversations":[{"from":"human","value":"<image>"},)"
             R"({"from":"gpt","value":"b"}]})"
             "\n";
  write_file_atomically(folder_ / "records.jsonl", records);
  const auto file = run_file("bad").string();
  const auto words =
      fmt::format("train {} --set data.train.0.path={}/records.jsonl", file, folder_.string());
  const auto stopped = run(words);
  EXPECT_EQ(stopped.status, 1);
  EXPECT_THAT(stopped.err, AllOf(HasSubstr("records.jsonl:9"), HasSubstr("cut.jpg")));
  const auto skipped = run(words + " --overwrite --set data.on_bad_sample=skip");
  EXPECT_EQ(skipped.status, 0) << skipped.err;
  EXPECT_EQ(losses(rows("bad")).size(), 6u);

  const auto check = run(fmt::format("data check {}/records.jsonl --model {}/model --decode",
                                     folder_.string(), made.string()));
  EXPECT_EQ(check.status, 1);
  EXPECT_THAT(check.out,
              AllOf(HasSubstr("records.jsonl:9"), HasSubstr("9 records: 8 good, 1 bad")));

  // One record of other bytes than UTF-8 costs no more than itself.
  write_file_atomically(folder_ / "bytes.jsonl", records + "{\"a\":\"\xff\xfe\"}\n");
  const auto bytes = run(fmt::format("data check {}/bytes.jsonl --json", folder_.string()));
  EXPECT_EQ(bytes.status, 1);
  const auto report = parse_json(bytes.out, "report");
  EXPECT_EQ(report["good"], 9);
  EXPECT_THAT(report["problems"].at(0).get<std::string>(),
              AllOf(HasSubstr("bytes.jsonl:10"), HasSubstr("\\xff")));

  write_file_atomically(folder_ / "empty.jsonl", "");
  const auto empty = run(fmt::format("train {} --overwrite --set data.train.0.path={}/empty.jsonl",
                                     file, folder_.string()));
  EXPECT_NE(empty.status, 0);
  EXPECT_THAT(empty.err, HasSubstr("empty.jsonl"));
  const auto too_long = run(fmt::format("train {} --overwrite --set data.max_length=20", file));
  EXPECT_EQ(too_long.status, 1);
  EXPECT_THAT(too_long.err, HasSubstr("max_length"));
}

TEST_F(Runs, APipelineGoesOnAsAnyOtherLayout) {
  const auto fp32 = "weights = \"random\"\nprecision = \"fp32\"";
  train(run_file("one", "", fp32));
  const auto one = losses(rows("one"));
  const std::string pipeline = "--nproc 2 --set parallel.pipeline=2 ";
  for (const auto& [before, after] : std::vector<std::pair<std::string, std::string>>{
           {pipeline, ""},
           {"", pipeline + "--set parallel.virtual=2"},
           {pipeline + "--set parallel.virtual=2", pipeline + "--set parallel.schedule=zb_h1"}}) {
    const auto file = run_file("changed", "", fp32);
    train(file, before + " --set train.steps=4 --overwrite --set checkpoint.resume=none");
    train(file, after + " --set train.validate_every=0");
    const auto changed = losses(rows("changed"));
    ASSERT_EQ(changed.size(), one.size());
    for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], changed[i], 1e-5) << after;
    const auto want = tensors_of(folder_ / "one/final/model.safetensors");
    const auto got = tensors_of(folder_ / "changed/final/model.safetensors");
    ASSERT_EQ(want.size(), got.size());
    for (const auto& [name, bytes] : want) {
      ASSERT_EQ(bytes.size(), got.at(name).size()) << name;
      double error = 0, size = 1e-12;
      for (size_t i = 0; i < bytes.size(); i += 4) {
        float a = 0, b = 0;
        std::memcpy(&a, bytes.data() + i, 4);
        std::memcpy(&b, got.at(name).data() + i, 4);
        error = std::max<double>(error, std::abs(a - b));
        size = std::max<double>(size, std::abs(a));
      }
      // Adam turns the rounding of gradients into steps. Those of a key's bias nearly cancel
      // (softmax does not see what all keys gain alike, only rotary tells them apart), so more of
      // them is rounding.
      EXPECT_LE(error / size, name.ends_with("k_proj.bias") ? 5e-3 : 1e-3) << name;
    }
  }
}

TEST_F(Runs, SplitRunsSaveAdaptersAndValidate) {
  const auto base = folder_with_weights("fp32");
  const auto file = [&](const std::string& name) {
    const auto validation =
        fmt::format("[[data.validation]]\npath = \"{}/data/held_out.jsonl\"\n", made.string());
    return run_file(name, "[model.lora]\nrank = 4\n" + validation,
                    fmt::format("precision = \"fp32\"\n"))
        .string();
  };
  const auto base_path = " --set train.validate_every=6 --set model.path=" + base.string();
  train(file("one"), base_path);
  for (const auto& [name, layout] : std::vector<std::pair<std::string, std::string>>{
           {"stages", "--nproc 2 --set parallel.pipeline=2"},
           {"shards", "--nproc 2 --set parallel.zero=3"}}) {
    train(file(name), layout + base_path);
    const auto one = losses(rows("one")), two = losses(rows(name));
    ASSERT_EQ(one.size(), two.size());
    for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5);
    EXPECT_GT(validation("one"), 0);
    EXPECT_NEAR(validation("one"), validation(name), 1e-5);
    const auto want = tensors_of(folder_ / "one/final/adapter_model.safetensors");
    const auto got = tensors_of(folder_ / name / "final/adapter_model.safetensors");
    ASSERT_EQ(want.size(), got.size());
    for (const auto& [tensor, bytes] : want)
      EXPECT_EQ(bytes.size(), got.at(tensor).size()) << tensor;
  }
}

TEST_F(Runs, APipelineNamesTheLayerAndTheRankOfNaN) {
  const auto outcome =
      run(fmt::format("train {} --nproc 2 --set parallel.pipeline=2 --set optimizer.lr=1e30 "
                      "--set optimizer.clip_norm=0",
                      run_file("inf").string()));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("not finite"), HasSubstr("the output of visual.blocks.0 (rank 0)")));
}

TEST_F(Runs, APipelineThatCannotBeIsRefusedWithItsArithmetic) {
  const auto outcome =
      run(fmt::format("train {} --nproc 2 --set parallel.pipeline=2 --set parallel.virtual=2 "
                      "--set train.global_batch=3 --set 'parallel.text_layers=[[1,0],[0,1]]'",
                      run_file("bad").string()));
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("parallel.text_layers sums to 2, the model has 3"),
                    HasSubstr("micro-batches (3) to be a multiple of parallel.pipeline (2)")));
  EXPECT_FALSE(fs::exists(folder_ / "bad"));
}

TEST_F(Runs, FullDiskLeavesTheLastCheckpoint) {
  const auto file = run_file("full");
  train(file, "--set train.steps=2");
  const auto kept = read_file(folder_ / "full/checkpoints/latest");
  // A limit on file sizes stands for a disk that is full: the log fits, weights do not.
  const auto outcome = run(fmt::format("train {}", file.string()), "ulimit -f 200; {}");
  EXPECT_EQ(outcome.status, 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("checkpoint"));
  EXPECT_EQ(read_file(folder_ / "full/checkpoints/latest"), kept);
  train(file);
  EXPECT_EQ(losses(rows("full")).size(), 6u);
}

TEST_F(Runs, ExamplesFitTheModelsTheyName) {
  // A folder as the hub's, but for the weights and with a small tokenizer.
  int found = 0;
  for (const auto& entry : fs::directory_iterator(source_dir() + "/examples/qwen2_5_vl")) {
    if (entry.path().extension() != ".toml") continue;
    const auto name = entry.path().stem().string();
    const auto model = folder_ / name;
    fs::copy(made / "model", model);
    const auto preset = qwen2_5_vl::preset("qwen2_5_vl_" + name.substr(0, name.find('_')));
    write_file_atomically(model / "config.json", dump_json(qwen2_5_vl::make_config(preset)));
    const auto outcome =
        run(fmt::format("train {} --dry-run --set model.path={} --set model.weights=random "
                        "--set data.train.0.path={}/data/train.jsonl",
                        entry.path().string(), model.string(), made.string()));
    EXPECT_EQ(outcome.status, 0) << name << "\n" << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("trained; 200 samples to train on"),
                                   HasSubstr("the first micro-batch: "),
                                   HasSubstr("activations      buffers        total")))
        << name;
    ++found;
  }
  EXPECT_EQ(found, 12);
}

TEST_F(Runs, PreviewShowsLabelsAndGrids) {
  const auto outcome = run(fmt::format(
      "data preview {0}/data/held_out.jsonl --model {0}/model --limit 1", made.string()));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("patches"), HasSubstr("<|image_pad|>×"),
                                 HasSubstr("<|im_start|>assistant\n⟦")));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  return triptych::run_tests_on_made(argc, argv);
}

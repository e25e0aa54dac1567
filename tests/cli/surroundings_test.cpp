// What surrounds a command: names of files that are not there, closed streams and readers that go
// away, signals, weights that are no numbers.

#include <gmock/gmock.h>

#include <fstream>
#include <limits>

#include "base/json.h"
#include "command_runs.h"

namespace triptych {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Surroundings : public CommandRuns {
 protected:
  fs::path run_file(const std::string& name, int64_t steps = 4) const {
    return write_run(name, folder_ / name, "weights = \"random\"",
                     fmt::format("steps = {}\nglobal_batch = 2", steps), "[log]\nevery = 1\n");
  }
  /// Every row of metrics.jsonl is one of a step.
  int64_t steps_of(const std::string& name) const {
    int64_t count = 0;
    std::ifstream file(folder_ / name / "metrics.jsonl");
    for (std::string line; std::getline(file, line); ++count)
      EXPECT_EQ(parse_json(line, name)["step"], count + 1);
    return count;
  }
  /// Text around a command: waits until a shell condition holds (for a minute at most) and then
  /// sends it a signal.
  static std::string signalled(const std::string& condition, const std::string& signal) {
    return fmt::format(
        "{{}} & pid=$!; n=0; until {} || [ $n -gt 3000 ]; do n=$((n+1)); sleep 0.02; done; "
        "kill -{} $pid; wait $pid",
        condition, signal);
  }
  std::string first_step_of(const std::string& name) const {
    return fmt::format("[ -s {}/metrics.jsonl ]", (folder_ / name).string());
  }
};

TEST_F(Surroundings, WhatIsNamedAndMissingIsAWrongCommandLine) {
  const auto run_toml = run_file("a").string();
  const auto model = (made / "model").string(), records = (made / "data/train.jsonl").string();
  for (const auto& [words, said] : std::vector<std::pair<std::string, std::string>>{
           {"train no.toml", "no.toml: no such run file"},
           {"train " + folder_.string(), "is a folder, a run file is expected"},
           {"train " + run_toml + " --set model.path=/no", "model.path: /no: no such model folder"},
           {"train " + run_toml + " --nproc 2 --set data.train.0.path=/no",
            "data.train.0.path: /no: no such file of records"},
           {"train " + run_toml + " --dry-run --set data.train.0.media=/no",
            "data.train.0.media: /no: no such folder of media"},
           {"train " + run_toml + " --set checkpoint.resume=/no",
            "checkpoint.resume: /no: no such checkpoint folder"},
           {"train " + run_toml + " --set output=" + run_toml, "is a file, a folder is expected"},
           {"plan no.toml --nproc 2", "no.toml: no such run file"},
           {"plan " + run_toml + " --nproc 2 --set model.path=/no", "/no: no such model folder"},
           {"generate no --prompt a", "no: no such model folder"},
           {"generate " + model + " --prompt a --image no.jpg", "no.jpg: no such picture"},
           {"generate " + model + " --prompt a --video no.mp4", "no.mp4: no such video"},
           {"generate " + model + " --prompt a --adapter no", "no: no such adapter folder"},
           {"evaluate no " + records, "no: no such model folder"},
           {"evaluate " + model + " no.jsonl", "no.jsonl: no such file of records"},
           {"evaluate " + model + " " + records + " --media no", "no: no such folder of media"},
           {"export no --output x", "no: no such adapter folder"},
           {"export " + model + " --model no --output x", "no: no such model folder"},
           {"verify no", "no: no such folder"},
           {"data check no.jsonl", "no.jsonl: no such file"},
           {"data check " + records + " --model no", "no: no such model folder"},
           {"data preview " + run_toml + " --set model.path=/no", "/no: no such model folder"},
           {"profile summary no", "no: no such file or folder"},
           {"insight no", "no: no such file or folder"}}) {
    const auto outcome = run(words);
    EXPECT_EQ(outcome.status, 2) << words << "\n" << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(said)) << words;
  }
  EXPECT_FALSE(fs::exists(folder_ / "a"));
}

TEST_F(Surroundings, ARunNeedsNobodyWhoReads) {
  run("train " + run_file("a").string(), "{} 2>&1 | head -n 1");
  EXPECT_EQ(steps_of("a"), 4);
  EXPECT_TRUE(fs::exists(folder_ / "a/final/model.safetensors"));
  run("train " + run_file("two").string() + " --nproc 2", "{} 2>&1 | head -n 1");
  EXPECT_EQ(steps_of("two"), 4);
}

// The numbers of closed streams must not go to the run's files.
TEST_F(Surroundings, ClosedStreamsSpoilNoFile) {
  const auto whole = run("train " + run_file("whole").string());
  const auto outcome = run("train " + run_file("a").string(), "{} <&- >&- 2>&-");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(steps_of("a"), 4);
  EXPECT_TRUE(read_file(folder_ / "a/final/model.safetensors") ==
              read_file(folder_ / "whole/final/model.safetensors"));
  EXPECT_EQ(run("completion bash", "{} >&-").status, 0);
}

TEST_F(Surroundings, OutputThatCannotBeWrittenIsAFailure) {
  const auto full = run("completion bash", "{} > /dev/full");
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.err, HasSubstr("standard output: cannot be written: No space left"));
  // A reader that goes away is no fault, also where SIGPIPE is ignored.
  for (const char* ignore : {"", "trap '' PIPE; "}) {
    const auto gone = run("completion bash", std::string(ignore) + "{} | head -n 1");
    EXPECT_EQ(gone.status, 0);
    EXPECT_EQ(gone.err, "");
  }
}

TEST_F(Surroundings, AClosedTerminalSavesUnlessUnderNohup) {
  const auto closed =
      run("train " + run_file("a", 100000).string(), signalled(first_step_of("a"), "HUP"));
  EXPECT_EQ(closed.status, 75) << closed.err;
  EXPECT_THAT(closed.err, HasSubstr("SIGHUP: saving after step "));
  EXPECT_TRUE(fs::exists(folder_ / "a/checkpoints/latest"));
  const auto launched = run("train " + run_file("two", 100000).string() + " --nproc 2",
                            signalled(first_step_of("two"), "HUP"));
  EXPECT_EQ(launched.status, 75) << launched.err;
  EXPECT_TRUE(fs::exists(folder_ / "two/checkpoints/latest"));
  // Launcher and ranks alike leave alone what was ignored at their start.
  const auto kept = run("train " + run_file("kept", 8).string() + " --nproc 2",
                        "trap '' HUP; " + signalled(first_step_of("kept"), "HUP"));
  EXPECT_EQ(kept.status, 0) << kept.err;
  EXPECT_EQ(steps_of("kept"), 8);
}

// A process that waits for a rank which never comes has nothing to save.
TEST_F(Surroundings, ASignalBeforeTheFirstStepEndsAtOnce) {
  const auto alone =
      "export RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 "
      "MASTER_ADDR=127.0.0.1 MASTER_PORT=1; ";
  const auto taken_over = "grep -Eq 'SigCgt.*[4-7c-f][0-9a-f]{3}$' /proc/$pid/status";
  EXPECT_EQ(
      run("train " + run_file("a").string(), std::string(alone) + signalled(taken_over, "TERM"))
          .status,
      75);
}

TEST_F(Surroundings, WeightsThatAreNoNumbersAreNamed) {
  ASSERT_EQ(run("train " + run_file("a").string() + " --set train.steps=1").status, 0);
  const auto model = folder_ / "a/final";
  const auto evaluated = [&] {
    return run(fmt::format("evaluate {} {}/data/held_out.jsonl --limit 1 --loss-only",
                           model.string(), made.string()));
  };
  EXPECT_EQ(evaluated().status, 0);
  auto bytes = read_file(model / "model.safetensors");
  bytes.replace(bytes.size() - 2, 2, "\xc0\x7f");  // a NaN of bf16
  write_file_atomically(model / "model.safetensors", bytes);
  const auto loss = evaluated();
  EXPECT_EQ(loss.status, 1);
  EXPECT_THAT(loss.err, AllOf(HasSubstr("held_out.jsonl:1: the loss is not finite: the weights '"),
                              HasSubstr("hold NaN or infinity (1 such tensor)")));
  const auto answer = run(fmt::format("generate {} --prompt a --image {}/data/held_out/00000.jpg",
                                      model.string(), made.string()));
  EXPECT_EQ(answer.status, 1);
  EXPECT_THAT(answer.err, HasSubstr("prompt: the model's logits are not finite: the weights '"));
}

TEST_F(Surroundings, FilesThatDoNotBelongAreRefused) {
  ASSERT_EQ(run("train " + run_file("a").string() + " --set train.steps=1").status, 0);
  const auto refused = [&](const std::string& name, const std::string& from, const std::string& to,
                           const std::string& said) {
    const auto model = folder_ / "model";
    fs::remove_all(model);
    fs::copy(folder_ / "a/final", model);
    auto text = read_file(model / name);
    ASSERT_NE(text.find(from), std::string::npos) << name;
    text.replace(text.find(from), from.size(), to);
    write_file_atomically(model / name, text);
    const auto outcome = run(fmt::format("generate {} --prompt a", model.string()));
    EXPECT_EQ(outcome.status, 1) << name;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr(said), Not(HasSubstr("internal")))) << name;
  };
  refused("generation_config.json", "\"eos_token_id\": ", "\"eos_token_id\": \"x\", \"old\": ",
          "eos_token_id holds \"x\", a token's number is expected");
  refused("model.safetensors", "\"BF16\"", "\"I16\" ", "is I16; weights are read as F32, BF16");
}

TEST_F(Surroundings, AFileCannotSteerTheTerminal) {
  write_file_atomically(
      folder_ / "evil.json",
      R"([{"image":"\u001b[31mred\n.jpg","conversations":[{"from":"human","value":"<image>"},)"
      R"({"from":"gpt","value":"b"}]}])");
  const auto check = run(fmt::format("data check {}/evil.json", folder_.string()));
  EXPECT_EQ(check.status, 1);
  EXPECT_THAT(check.out,
              AllOf(HasSubstr("evil.json:1: record 1: '\\x1b[31mred\\x0a.jpg' is missing"),
                    Not(HasSubstr("\x1b"))));
  const auto preview = run(
      fmt::format("data preview {}/evil.json --model {}/model", folder_.string(), made.string()));
  EXPECT_THAT(preview.err, AllOf(HasSubstr("\\x1b[31mred"), Not(HasSubstr("\x1b"))));
}

}  // namespace
}  // namespace triptych

#include "cli/command.h"

#include <gmock/gmock.h>

#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/completion.h"
#include "cli/help.h"
#include "support/paths.h"
#include "train/run_options.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

Command example() {
  Command command;
  command.name = "train";
  command.summary = "Train a model from one run file.";
  command.usage = "RUN.toml [--nproc N] [--set key=value]...";
  command.flags = {{"--nproc", "N", "processes on this host; default: one per device"},
                   {"--set", "key=value", "override one option, e.g. --set train.steps=2", true},
                   {"--options", "", "print every option with default, range and meaning"},
                   {"--mode", "M", "a choice", false, {"a", "b"}}};
  command.example = "triptych train examples/x.toml";
  command.run = [](const Arguments& arguments) {
    const std::string& file = arguments.only("RUN.toml");
    if (file == "bad") fail("bad: is bad");
    if (file == "bug") throw std::logic_error("never");
    return file == "stop" ? 75 : 0;
  };
  return command;
}

Arguments parse(const std::vector<std::string>& words) {
  static const Command command = example();
  return Arguments("train", command.flags, words);
}

struct Outcome {
  int status;
  std::string out, err;
};
Outcome run(const std::vector<std::string>& words) {
  const std::vector<Command> commands = {example(), doctor_command()};
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Outcome outcome{};
  outcome.status = run_command_line(commands, words);
  outcome.out = testing::internal::GetCapturedStdout();
  outcome.err = testing::internal::GetCapturedStderr();
  return outcome;
}

TEST(Arguments, TakesFlagsInAnyPlaceAndForm) {
  const Arguments a =
      parse({"--set", "a.b=[1,2]", "run.toml", "--nproc=2", "--set=c=[x]", "--", "--not-a-flag"});
  EXPECT_THAT(a.all("--set"), ElementsAre("a.b=[1,2]", "c=[x]"));
  EXPECT_EQ(a.integer("--nproc", 1, 1), 2);
  EXPECT_THAT(a.positional(), ElementsAre("run.toml", "--not-a-flag"));
  EXPECT_FALSE(a.has("--options"));
  EXPECT_EQ(a.number("--absent", 0.5, 0, 1), 0.5);
}

struct Wrong {
  std::vector<std::string> words;
  std::string message;
};
class WrongArguments : public testing::TestWithParam<Wrong> {};

TEST_P(WrongArguments, AreNamed) {
  EXPECT_THAT(
      [&] {
        const Arguments a = parse(GetParam().words);
        a.integer("--nproc", 1, 1);
        a.only("RUN.toml");
      },
      ThrowsMessage<UsageError>(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Golden, WrongArguments,
    testing::Values(Wrong{{"--nporc", "2"}, "train: --nporc is not a flag; nearest: --nproc"},
                    Wrong{{"--nproc"}, "train: --nproc needs a value, --nproc N"},
                    Wrong{{"--nproc", "--options", "a"},
                          "train: --nproc has no value, --nproc N; --options follows it"},
                    Wrong{{"--nproc", "x"}, "train: --nproc = x must be an integer of at least 1"},
                    Wrong{{"--nproc", "0"}, "train: --nproc = 0 must be an integer of at least 1"},
                    Wrong{{"--nproc", "1", "--nproc", "2"}, "train: --nproc is given twice"},
                    Wrong{{"--options=1"}, "train: --options takes no value"},
                    Wrong{{"--mode", "c"}, "train: --mode = c is not a choice; allowed: a and b"},
                    Wrong{{}, "train: RUN.toml is missing; see triptych train --help"},
                    Wrong{{"a", "b"}, "train: 'b' is one word too many"}));

TEST(CommandLine, ExitStatusAndStreams) {
  EXPECT_EQ(run({}).status, 0);
  EXPECT_THAT(run({}).out, HasSubstr("  train   Train a model from one run file.\n"));
  EXPECT_EQ(run({"train", "stop"}).status, 75);
  EXPECT_EQ(run({"train", "ok"}).status, 0);
  const Outcome failed = run({"train", "bad"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_EQ(failed.err, "error: bad: is bad\n");
  EXPECT_EQ(failed.out, "");
  const Outcome unknown = run({"trian"});
  EXPECT_EQ(unknown.status, 2);
  EXPECT_EQ(unknown.err, "error: 'trian' is not a command; nearest: train\n");
  EXPECT_EQ(run({"--json"}).status, 2);
  EXPECT_EQ(run({"help", "nothing"}).status, 2);
}

TEST(CommandLine, WhatWasNotForeseenIsReportedAsABug) {
  const Outcome outcome = run({"train", "bug"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("error: internal: never\nerror: this is a bug in triptych; a "
                                     "report was written to "));
  const size_t at = outcome.err.find("written to ") + 11;
  const std::string path = outcome.err.substr(at, outcome.err.size() - at - 1);
  EXPECT_THAT(read_file(path), HasSubstr("triptych train bug"));
  std::remove(path.c_str());
}

TEST(CommandLine, HelpIsTheDocumentedLayout) {
  EXPECT_EQ(run({"help", "train"}).out, run({"train", "x", "--help"}).out);
  EXPECT_EQ(
      help_text(example()),
      "Train a model from one run file.\n"
      "\n"
      "  triptych train RUN.toml [--nproc N] [--set key=value]...\n"
      "\n"
      "  --nproc N        processes on this host; default: one per device\n"
      "  --set key=value  override one option, e.g. --set train.steps=2\n"
      "  --options        print every option with default, range and meaning\n"
      "  --mode M         a choice\n"
      "\n"
      "  --color WHEN  colours: auto (terminals only, unless NO_COLOR is set), always, never\n"
      "  -q            only warnings and errors\n"
      "  -v            more detail\n"
      "  --help        this text; also -h\n"
      "\n"
      "Example: triptych train examples/x.toml\n"
      "Exit status: 0 done, 1 failed, 2 wrong options (nothing was started).\n");
}

TEST(CommandLine, LongHelpIsWrapped) {
  EXPECT_EQ(wrap_text("aa bb cc dd", 5, 2), "aa bb\n  cc dd");
}

TEST(Completion, ScriptsKnowCommandsFlagsAndOptions) {
  const std::vector<Command> commands = {example()};
  const auto options = describe_options(run_schema());
  const std::string bash = bash_completion(commands, options);
  EXPECT_THAT(bash, HasSubstr("'help train --help --version'"));
  EXPECT_THAT(bash, HasSubstr("--mode) words='a b' ;;"));
  EXPECT_THAT(bash, HasSubstr(" device=cuda "));
  EXPECT_THAT(bash, HasSubstr(" data.train.0.path= "));
  EXPECT_THAT(zsh_completion(commands, options), HasSubstr("'*--set[override one option, e.g. "));
  EXPECT_THAT(fish_completion(commands, options), HasSubstr("-l mode -x -a 'a b'"));
}

/// What a shell command prints.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  char buffer[4096];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
  pclose(pipe);
  return text;
}

TEST(Program, BashCompletionWorksInBash) {
  const std::string script =
      "bash -c 'eval \"$(" + triptych_command() +
      " completion bash)\"; compopt() { :; }; COMP_WORDS=(triptych doctor --set train.st); "
      "COMP_CWORD=3; _triptych; echo \"${COMPREPLY[@]}\"; COMP_WORDS=(triptych doc); COMP_CWORD=1; "
      "_triptych; echo \"${COMPREPLY[@]}\"'";
  EXPECT_EQ(output_of(script), "train.steps=\ndoctor\n");
}

TEST(Program, VersionAsJson) {
  const Json version = parse_json(output_of(triptych_command() + " --version --json"), "version");
  EXPECT_TRUE(version["libtorch"].is_string());
  EXPECT_TRUE(version["commit"].is_string());
}

TEST(Program, DoctorFindsWhatTheBuildLinked) {
  const Json checks = parse_json(output_of(triptych_command() + " doctor --json"), "doctor");
  for (const Json& check : checks) EXPECT_NE(check["verdict"], "failed") << check.dump();
}

}  // namespace
}  // namespace triptych

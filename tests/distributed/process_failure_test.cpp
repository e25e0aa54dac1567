// A rank that dies, hangs, throws or was started differently: who is named, and how soon all stop.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/log.h"
#include "parallel/launcher.h"
#include "parallel/process_context.h"
#include "ranks.h"

namespace triptych {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using testing_ranks::run_ranks;
using testing_ranks::Started;
using testing_ranks::Store;

/// What `main` does around a run: prints the error once and gives the exit status.
int guarded(const Json& config, const std::function<void(ProcessContext&)>& body) {
  std::unique_ptr<ProcessContext> process;
  try {
    process = std::make_unique<ProcessContext>(
        read_launch_environment(),
        ProcessOptions{.threads = 1,
                       .timeout_s = config.value("timeout_s", 20.0),
                       .warn_after_s = config.value("warn_after_s", 10.0),
                       .check_collectives = config.value("check", false),
                       .rendezvous_timeout_s = config.value("rendezvous_timeout_s", 20.0),
                       .poll_s = 0.2});
    body(*process);
    process->close();
    return 0;
  } catch (const std::exception& error) {
    if (!process || process->report_failure(error)) log_error("{}", error.what());
    return dynamic_cast<const UsageError*>(&error) != nullptr ? 2 : 1;
  }
}

/// Steps of one all-reduce each; at step 3 one rank does what the configuration says.
int steps(const Json& config) {
  return guarded(config, [&](ProcessContext& process) {
    const auto who = config.value("rank", -1);
    const auto what = config.value("what", std::string());
    const auto x = at::ones({4});
    for (int64_t step = 1; step <= 5; ++step) {
      process.set_step(step);
      if (step == 3 && process.rank() == who) {
        if (what == "dies") ::kill(::getpid(), SIGKILL);
        if (what == "throws") fail<DataError>("train.jsonl:17: the picture is missing");
        if (what == "hangs") std::this_thread::sleep_for(std::chrono::seconds(60));
        if (what == "other") process.world().barrier("by mistake");
      }
      process.world().all_reduce(x, ReduceOp::kSum, "x");
    }
  });
}

int compare(const Json& config) {
  return guarded(config, [&](ProcessContext& process) {
    const auto rank = std::to_string(process.rank());
    process.compare_configuration(config.at("by_rank").at(rank), config.at("version").at(rank));
    process.control().all_gather_strings("x");
  });
}

/// Collectives over a mesh of 2 x 2, checked against what they must give.
int groups(const Json& config) {
  return guarded(config, [](ProcessContext& process) {
    process.set_mesh({.tensor = 2});
    const auto rank = static_cast<float>(process.rank());
    auto& tensor = process.group(kTensorGroup);
    auto& data = process.group(kDataGroup);
    require(&data == &process.group(kGradientGroup), "equal members should share a group");
    const auto x = at::full({3}, rank);
    data.all_reduce(x);
    require(x.equal(at::full({3}, process.rank() % 2 == 0 ? 2.F : 4.F)), "all_reduce over data");
    const auto all = at::zeros({2, 2});
    tensor.all_gather_into(all, at::full({1, 2}, rank));
    const auto first = static_cast<float>(process.rank() / 2 * 2);
    require(all.equal(at::stack({at::full({2}, first), at::full({2}, first + 1)})), "all_gather");
    const auto sum = at::zeros({2});
    process.world().reduce_scatter_into(sum, at::arange(8, at::kFloat) + rank);
    require(sum.equal((at::arange(8, at::kFloat) * 4 + 6).narrow(0, process.rank() * 2, 2)),
            "reduce_scatter");
    const auto from_two = at::full({2}, rank);
    process.world().broadcast(from_two, 2);
    require(from_two.equal(at::full({2}, 2.F)), "broadcast");
    const auto texts = process.control().all_gather_strings(std::string(process.rank(), 'x'));
    require(texts == std::vector<std::string>({"", "x", "xx", "xxx"}), "all_gather_strings");
    require(process.any(process.rank() == 3) && !process.any(false), "any");
    auto pending = process.world().all_reduce_async(at::ones({100}));
    process.world().barrier();
    pending.wait();
    pending.wait();
    auto& self = process.group(kPipelineGroup);
    self.all_reduce(x);
    require(self.size() == 1 && self.rank() == 0, "a group of one");
  });
}

std::string all_output(const Started& started) {
  std::string text;
  for (size_t r = 0; r < started.ranks.size(); ++r) {
    text += "--- rank " + std::to_string(r) + ", status " +
            std::to_string(started.ranks[r].status) + "\n" + started.ranks[r].output;
  }
  return text;
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Groups, GiveWhatTheirNamesSay) {
  for (const bool check : {false, true}) {
    const auto ended = run_ranks(4, "groups", {{"check", check}});
    for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 0) << all_output(ended);
  }
}

TEST(Groups, OneProcessNeedsNothing) {
  EXPECT_EQ(testing_ranks::run_alone("steps", Json::object()).status, 0);
}

// The port of torchrun: nobody serves, or a server is there already.
TEST(Rendezvous, ServesWhereNobodyDoes) {
  const auto ended = run_ranks(2, "steps", Json::object(), 60, Store::kByPort);
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 0) << all_output(ended);
}

TEST(Rendezvous, UsesAStoreThatListensAlready) {
  c10d::TCPStoreOptions options;
  const auto port = testing_ranks::listen_somewhere();
  options.isServer = true;
  options.waitWorkers = false;
  options.port = static_cast<uint16_t>(port.number);
  options.masterListenFd = port.socket;
  const c10d::TCPStore server("127.0.0.1", options);
  const auto ended = run_ranks(2, "steps", Json::object(), 60, Store::kByPort,
                               {{"MASTER_PORT", std::to_string(port.number)}});
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 0) << all_output(ended);
}

TEST(Rendezvous, NamesMissingRanks) {
  const auto ended = run_ranks(2, "steps", {{"rendezvous_timeout_s", 2}, {"warn_after_s", 0.5}}, 60,
                               Store::kInherited, {{"WORLD_SIZE", "4"}});
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 1) << all_output(ended);
  EXPECT_THAT(all_output(ended), HasSubstr("not all of 4 ranks came"));
  EXPECT_THAT(all_output(ended), HasSubstr("missing: 2 3"));
  EXPECT_THAT(all_output(ended),  // long before the end
              AllOf(HasSubstr("warning: rank 0 waits at 127.0.0.1:"),
                    HasSubstr("at most 2 s); not there yet: 2 3\n")));
}

// Rank 0 is not started: the others say so, in our words alone.
TEST(Rendezvous, SaysThatItWaitsForRankZero) {
  const auto port = testing_ranks::listen_somewhere();
  ::close(port.socket);
  const auto ended = run_ranks(
      1, "steps", {{"rendezvous_timeout_s", 2}, {"warn_after_s", 0.5}}, 20, Store::kByPort,
      {{"WORLD_SIZE", "2"}, {"RANK", "1"}, {"MASTER_PORT", std::to_string(port.number)}});
  EXPECT_EQ(ended.ranks[0].status, 1) << all_output(ended);
  const auto address = "127.0.0.1:" + std::to_string(port.number);
  EXPECT_THAT(all_output(ended),
              AllOf(HasSubstr("rank 1 waits for the rendezvous store at " + address + " (for "),
                    HasSubstr("rank 1 finds no rendezvous store at " + address + " within 2 s"),
                    Not(HasSubstr("socket.cpp"))));
}

TEST(Rendezvous, NamesAPortOfAnotherProgram) {
  const auto port = testing_ranks::listen_somewhere();  // accepts and never answers
  const auto ended = run_ranks(2, "steps", {{"rendezvous_timeout_s", 2}, {"warn_after_s", 0.5}}, 20,
                               Store::kByPort, {{"MASTER_PORT", std::to_string(port.number)}});
  ::close(port.socket);
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 1) << all_output(ended);
  EXPECT_THAT(all_output(ended),
              AllOf(HasSubstr("is the port another program's?"),
                    HasSubstr("what listens there does not answer"),
                    HasSubstr("rank 0 finds no rendezvous store at 127.0.0.1:")));
}

struct Death {
  int rank;
  std::string named;
};
class DeadRank : public testing::TestWithParam<Death> {};

TEST_P(DeadRank, IsNamedAndAllStop) {
  const auto ended = run_ranks(3, "steps", {{"rank", GetParam().rank}, {"what", "dies"}});
  const auto text = all_output(ended);
  for (int r = 0; r < 3; ++r) {
    EXPECT_EQ(ended.ranks[static_cast<size_t>(r)].status, r == GetParam().rank ? 128 + SIGKILL : 1)
        << text;
  }
  EXPECT_LT(ended.seconds, 10) << text;
  EXPECT_THAT(text, HasSubstr(GetParam().named));
}

INSTANTIATE_TEST_SUITE_P(Ranks, DeadRank,
                         testing::Values(Death{1, "is gone, it was at step"}, Death{2, "rank 2 ("},
                                         Death{0, "which serves the store, is gone"}));

TEST(ThrowingRank, SpeaksOnceAndForAll) {
  for (const int who : {0, 2}) {
    const auto ended = run_ranks(3, "steps", {{"rank", who}, {"what", "throws"}});
    const auto text = all_output(ended);
    for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 1) << text;
    EXPECT_LT(ended.seconds, 10) << text;
    EXPECT_EQ(count(text, "error: "), 1) << text;
    EXPECT_THAT(ended.ranks[static_cast<size_t>(who)].output,
                HasSubstr("train.jsonl:17: the picture is missing"));
  }
}

/// `train --nproc 3`: the workers run `steps`.
int launched(const Json& /*config*/) {
  ::setenv("TRIPTYCH_TEST_SCENARIO", "steps", 1);
  const std::vector<std::string> argv = {"rank"};
  return launch_workers({.processes = 3, .threads = 1}, argv);
}

// The launcher reports the rank at fault, though rank 0, which holds the store, ends last.
TEST(Launched, ReportsTheRankAtFault) {
  for (const int who : {0, 2}) {
    const auto thrown = testing_ranks::run_alone("launched", {{"rank", who}, {"what", "throws"}});
    EXPECT_EQ(thrown.status, 1);
    EXPECT_EQ(count(thrown.output, "error: "), 2) << thrown.output;
    EXPECT_THAT(thrown.output, HasSubstr("the picture is missing"));
    EXPECT_THAT(thrown.output, HasSubstr("rank " + std::to_string(who) +
                                         " failed with status 1; its message is above"));
  }
  const auto killed = testing_ranks::run_alone("launched", {{"rank", 1}, {"what", "dies"}});
  EXPECT_EQ(killed.status, 1);
  EXPECT_THAT(killed.output, HasSubstr("rank 1 was killed by signal 9"));
}

TEST(HangingRank, IsWarnedAboutAndThenNamed) {
  const auto ended = run_ranks(
      3, "steps", {{"rank", 1}, {"what", "hangs"}, {"timeout_s", 3}, {"warn_after_s", 1}});
  const auto text = all_output(ended);
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 1) << text;
  EXPECT_LT(ended.seconds, 15) << text;
  EXPECT_THAT(text, HasSubstr("rank 0, 2 waits in all_reduce #3"));
  EXPECT_THAT(text, HasSubstr("is not there: step 3, it computes after all_reduce #2"));
  EXPECT_THAT(text, HasSubstr("[4] Float 'x'"));
}

TEST(WrongCollective, IsAnErrorWithBothNames) {
  const auto ended = run_ranks(2, "steps", {{"rank", 1}, {"what", "other"}, {"check", true}});
  const auto text = all_output(ended);
  for (const auto& rank : ended.ranks) EXPECT_EQ(rank.status, 1) << text;
  EXPECT_THAT(text,
              AnyOf(HasSubstr("rank 0 calls all_reduce #3"), HasSubstr("rank 1 calls barrier #3")));
  EXPECT_LT(ended.seconds, 10) << text;
}

TEST(StartUpCheck, GivesEveryRankTheSameText) {
  const Json same = {{"optimizer", {{"lr", 1e-4}, {"name", "adamw"}}}};
  const Json other = {{"optimizer", {{"lr", 2e-4}, {"name", "adamw"}}}};
  const Json versions = {{"0", "1.0"}, {"1", "1.0"}, {"2", "1.0"}};
  const auto good = run_ranks(
      3, "compare", {{"by_rank", {{"0", same}, {"1", same}, {"2", same}}}, {"version", versions}});
  for (const auto& rank : good.ranks) EXPECT_EQ(rank.status, 0) << all_output(good);

  const auto bad = run_ranks(
      3, "compare", {{"by_rank", {{"0", same}, {"1", same}, {"2", other}}}, {"version", versions}});
  const auto text = all_output(bad);
  for (const auto& rank : bad.ranks) EXPECT_EQ(rank.status, 2) << text;
  EXPECT_EQ(count(text, "configuration.optimizer.lr: 0.0001 on ranks 0, 1; 0.0002 on rank 2"), 3)
      << text;
  EXPECT_THAT(text, Not(HasSubstr("optimizer.name")));

  const Json mixed = {{"0", "1.0"}, {"1", "1.1"}, {"2", "1.0"}};
  const auto version = run_ranks(
      3, "compare", {{"by_rank", {{"0", same}, {"1", same}, {"2", same}}}, {"version", mixed}});
  EXPECT_EQ(count(all_output(version), "version: \"1.0\" on ranks 0, 2; \"1.1\" on rank 1"), 3);
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("steps", triptych::steps);
  triptych::testing_ranks::add_scenario("compare", triptych::compare);
  triptych::testing_ranks::add_scenario("groups", triptych::groups);
  triptych::testing_ranks::add_scenario("launched", triptych::launched);
  return triptych::testing_ranks::run_main(argc, argv);
}

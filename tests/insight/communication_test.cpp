// Who sent how much to whom, and how long it took: by hand, and on the traces of two Gloo ranks.

#include "insight/communication.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/format.h"
#include "insight/comm_calls.h"
#include "insight/flame.h"
#include "insight/queries.h"
#include "loaded.h"
#include "support/paths.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

constexpr double kMiB = 1 << 20;

std::string record(std::string_view name, int ts, int end, std::string_view args) {
  return fmt::format(
      R"({{"ph":"X","cat":"mm_comm","name":"{0}","pid":1,"tid":1,"ts":{1},"dur":{2},
         "args":{{"Collective name":"{0}",{3}}}}})",
      name, ts, end - ts, args);
}

/// Three ranks, the third on another host. One all-reduce of 3 MiB that rank 1 comes to last, at
/// 150 us, and that ends at 1150; one message of 2 MiB from rank 0 to rank 1, sent at 2000 us,
/// waited for from 1900 on, there at 2600.
std::shared_ptr<Run> three_ranks() {
  const std::string group =
      R"("Seq":0,"Process Group Name":"g","Process Group Ranks":"[0, 1, 2]","Bytes":3145728)";
  const std::string message =
      R"("Seq":0,"Process Group Name":"p","Src Rank":0,"Dst Rank":1,"Bytes":2097152)";
  const auto trace = [&](int rank, const char* host, int begin, const std::string& more) {
    return fmt::format(
        R"({{"distributedInfo":{{"rank":{},"world_size":3}},"mm":{{"host":"{}"}},"traceEvents":[{}{}]}})",
        rank, host, record("allreduce", begin, 1150, group), more);
  };
  return run_of({trace(0, "a", 100, "," + record("send", 2000, 2500, message)),
                 trace(1, "a", 150, "," + record("recv", 1900, 2600, message)),
                 trace(2, "b", 120, "")});
}

/// Two hosts that send each other messages of 2 MiB, a second apart: rank 1 in 200 ms, waited for.
/// Those of rank 0 are asked for only `late_ms` after they were sent, and are there then.
std::shared_ptr<Run> asked_for_late(int messages, int late_ms) {
  std::vector<std::string> events(2);
  for (int i = 0; i < messages; ++i) {
    const auto args = [&](int src) {
      return fmt::format(
          R"("Seq":{},"Process Group Name":"p","Src Rank":{},"Dst Rank":{},"Bytes":2097152)", i,
          src, 1 - src);
    };
    const int back = i * 1000000, to = back + 500000, late = late_ms * 1000;
    events[0] += "," + record("recv", back, back + 200100, args(1));
    events[1] += "," + record("send", back + 100, back + 150000, args(1));
    events[0] += "," + record("send", to, to + 500, args(0));
    events[1] += "," + record("recv", to + late, to + late + 100, args(0));
  }
  std::vector<std::string> texts;
  for (int rank = 0; rank < 2; ++rank)
    texts.push_back(fmt::format(
        R"({{"distributedInfo":{{"rank":{0},"world_size":2}},"mm":{{"host":"h{0}"}},"traceEvents":[{1}]}})",
        rank, events[static_cast<size_t>(rank)].substr(1)));
  return run_of(texts);
}

const Json& cell(const Json& document, int src, int dst) {
  for (const auto& row : document["rows"])
    if (row["src"] == src && row["dst"] == dst) return row;
  static const Json kNone;
  return kNone;
}

TEST(CommMatrix, SpreadsCollectivesOverARingAndCountsMessagesExactly) {
  const Queries queries(three_ranks());
  const auto all = queries.comm_matrix({}, "", "");
  EXPECT_EQ(all["ranks"], (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(all["types"], (std::vector<std::string>{"all_reduce", "send_recv"}));
  ASSERT_EQ(all["cells"].size(), 3u) << all["cells"];
  // A ring of three carries 2 * 2/3 of 3 MiB over each link, in the 1000 us after the last came.
  const auto& both = cell(all, 0, 1);
  EXPECT_DOUBLE_EQ(both["bytes"].get<double>(), 4 * kMiB + 2 * kMiB);
  EXPECT_EQ(both["time_ns"], 1000000 + 600000);
  EXPECT_DOUBLE_EQ(both["bandwidth"].get<double>(), 6 * kMiB / 1.6e-3);
  EXPECT_EQ(both["count"], 2);
  EXPECT_EQ(both["estimated"], true);
  EXPECT_EQ(both["transport"], "same host");
  EXPECT_DOUBLE_EQ(cell(all, 1, 2)["bytes"].get<double>(), 4 * kMiB);
  EXPECT_EQ(cell(all, 1, 2)["transport"], "other host");
  EXPECT_EQ(cell(all, 2, 0)["time_ns"], 1000000);

  const auto messages = queries.comm_matrix({}, "", "send_recv");
  ASSERT_EQ(messages["cells"].size(), 1u);
  EXPECT_EQ(messages["cells"][0]["bytes"], 2 * kMiB);
  EXPECT_EQ(messages["cells"][0]["time_ns"], 600000);
  EXPECT_EQ(messages["cells"][0]["estimated"], false);
  EXPECT_EQ(queries.comm_matrix({}, "g", "")["cells"].size(), 3u);
  EXPECT_EQ(cell(queries.comm_matrix({}, "g", ""), 0, 1)["count"], 1);
}

TEST(CommLinks, CountTheLargeMessages) {
  const auto links = Queries(three_ranks()).comm_links({});
  ASSERT_EQ(links["rows"].size(), 3u);
  EXPECT_EQ(cell(links, 0, 1)["large"], 2);
  EXPECT_EQ(cell(links, 0, 1)["count"], 2);
  EXPECT_EQ(cell(links, 2, 0)["large"], 1);
  EXPECT_DOUBLE_EQ(cell(links, 2, 0)["bandwidth"].get<double>(), 4 * kMiB / 1e-3);
  EXPECT_TRUE(links["slow"].empty());
}

/// A transfer that nobody waits for took at most the time from its sending to its receipt: enough
/// to call the other link slow where that is short, and nothing to say where it is long.
TEST(SlowLinks, AreFoundBesideALinkThatNobodyWaitsFor) {
  const auto run = asked_for_late(4, 40);
  const auto calls = match_calls(*run);
  const auto slow = slow_links(*run, calls);
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].src, 1);
  EXPECT_EQ(slow[0].dst, 0);
  EXPECT_EQ(slow[0].messages, 4);
  EXPECT_DOUBLE_EQ(slow[0].bandwidth, 2 * kMiB / 0.2);
  EXPECT_DOUBLE_EQ(slow[0].usual, 2 * kMiB / 0.0401);
  for (const auto& link : links_of(*run, calls, "", ""))
    EXPECT_EQ(link.large, link.src == 1 ? 4 : 0);

  const auto late = asked_for_late(4, 150);  // 14 MB/s at the least, beside 10
  EXPECT_TRUE(slow_links(*late, match_calls(*late)).empty());
  const auto few = asked_for_late(2, 40);
  EXPECT_TRUE(slow_links(*few, match_calls(*few)).empty());
}

/// The figures were summed up from the files by another program. Neither end of a Gloo message
/// names its peer.
TEST(CommMatrix, OfTwoGlooRanks) {
  const auto run = load_run(fs::path(source_dir()) / "tests/insight/two_gloo_ranks");
  const Queries queries(run);
  constexpr int kGradients = 3 * 4 * (32 * 64 + 64 + 64 * 8 + 8);  // three steps, fp32
  const auto reduces = queries.comm_matrix({}, "", "all_reduce");
  ASSERT_EQ(reduces["cells"].size(), 2u) << reduces["cells"];
  for (const int src : {0, 1}) {  // two ranks: all of it over each of the two links
    EXPECT_EQ(cell(reduces, src, 1 - src)["bytes"], kGradients);
    EXPECT_EQ(cell(reduces, src, 1 - src)["count"], 12);
    EXPECT_EQ(cell(reduces, src, 1 - src)["time_ns"], 314415067);
  }
  const auto messages = queries.comm_matrix({}, "", "send_recv");
  EXPECT_EQ(messages["ranks"], (std::vector<int64_t>{0, 1}));
  ASSERT_EQ(messages["cells"].size(), 1u) << messages["cells"];
  EXPECT_EQ(cell(messages, 0, 1)["bytes"], 3 * 4 * 16 * 32);
  EXPECT_EQ(cell(messages, 0, 1)["time_ns"], 219732722);
  const auto links = queries.comm_links({});
  ASSERT_EQ(links["rows"].size(), 2u) << links["rows"];
  EXPECT_EQ(cell(links, 0, 1)["bytes"], kGradients + 3 * 4 * 16 * 32);
  EXPECT_EQ(cell(links, 0, 1)["large"], 0);
}

/// What has nothing to show says why, and what to set.
TEST(WhyEmpty, EachPageOfABareTrace) {
  const Queries queries(run_of(
      {R"([{"ph":"X","cat":"python_function","name":"main","pid":1,"tid":1,"ts":1,"dur":2}])"}));
  const auto why = [](const Json& document) { return document.value("empty", ""); };
  EXPECT_THAT(why(queries.pipeline({})), HasSubstr("parallel.pipeline > 1"));
  EXPECT_THAT(why(queries.pipeline({})), HasSubstr("profile.level >= 1"));
  for (const auto& document :
       {queries.comm_matrix({}, "", ""), queries.comm_calls({}, "", ""), queries.comm_ranks({}, ""),
        queries.comm_links({}), queries.comm_groups({}), queries.comm_alignment({})})
    EXPECT_THAT(why(document), HasSubstr("no communication was recorded")) << document;
  EXPECT_THAT(why(queries.kernels({})), HasSubstr("no device work was recorded"));
  EXPECT_THAT(why(queries.ops({})), HasSubstr("profile.with_cpu = true"));
  EXPECT_THAT(why(queries.flame({}, {.modules = true})), HasSubstr("profile.with_stack = true"));
  EXPECT_THAT(why(queries.critical_path({})), HasSubstr("ProfilerStep#n"));
  EXPECT_THAT(why(queries.memory_curve({}, 100)), HasSubstr("profile.with_memory = true"));
  const Queries nothing(run_of(
      {R"([{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":1,"dur":2,"args":{"stream":7}}])"}));
  EXPECT_THAT(why(nothing.flame({}, {})), HasSubstr("the host recorded nothing here"));
}

}  // namespace
}  // namespace triptych::insight

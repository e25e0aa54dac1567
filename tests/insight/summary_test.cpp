#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "insight/comm_calls.h"
#include "insight/pickle.h"
#include "insight/queries.h"
#include "insight/report.h"
#include "insight/snapshot_curve.h"
#include "insight/step_times.h"
#include "loaded.h"
#include "support/paths.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

// ---- snapshots

TEST(Pickle, ReadsDataAndRefusesCode) {
  // {'a': [1, -2, 3.5, None, True, 'x'], 'b': (18446744073709551615,)} with protocol 4, memoised.
  static constexpr char kGood[] =
      "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"
      "a\x94]\x94(K\x01J\xfe\xff\xff\xffG@\x0c\x00\x00\x00\x00\x00\x00"
      "N\x88\x8c\x01x\x94"
      "e\x8c\x01"
      "b\x94\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00\x85\x94u.";
  const std::string good(kGood, sizeof kGood - 1);
  const auto value = read_pickle(good, "s.pickle");
  EXPECT_EQ(value["a"], Json::parse(R"([1, -2, 3.5, null, true, "x"])"));
  EXPECT_EQ(value["b"][0], 18446744073709551615ull);
  EXPECT_THAT([] { read_pickle("cos\nsystem\n(S'echo'\ntR.", "s.pickle"); },
              testing::ThrowsMessage<DataError>(
                  HasSubstr("is not plain data; nothing of this file is executed")));
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_THROW(read_pickle(good.substr(0, cut), "s"), DataError) << cut;
  const std::string cycle(
      "\x80\x02]q\x00h\x00"
      "a.",
      9);
  EXPECT_THROW(read_pickle(cycle, "s"), DataError);
}

/// A snapshot by hand: 100 bytes from before, then 50 and 30 come, 100 and 30 go, 20 come.
Json snapshot_by_hand() {
  const auto frames = [](const char* layer) {
    return Json::array({{{"name", layer}, {"filename", "forward"}, {"line", 0}}});
  };
  const auto event = [&](const char* action, int64_t t, int64_t size, const char* category,
                         const char* layer) {
    return Json{{"action", action}, {"addr", size},         {"size", size},           {"stream", 0},
                {"time_us", t},     {"category", category}, {"frames", frames(layer)}};
  };
  const auto block = [&](int64_t size, const char* category, const char* layer) {
    return Json{{"address", size},        {"size", size},
                {"requested_size", size}, {"state", "active_allocated"},
                {"category", category},   {"frames", frames(layer)}};
  };
  return {
      {"segments",
       {{{"device", 0},
         {"address", 0},
         {"total_size", 70},
         {"allocated_size", 70},
         {"stream", 0},
         {"blocks", {block(50, "activation", "a"), block(20, "gradient", "b")}}}}},
      {"device_traces",
       {{event("alloc", 1000, 50, "activation", "a"), event("alloc", 1001, 30, "temporary", "b"),
         event("free_requested", 1002, 100, "parameter", "b"),
         event("free_completed", 1002, 100, "parameter", "b"),
         event("free_completed", 1003, 30, "temporary", "b"),
         event("alloc", 1004, 20, "gradient", "b")}}}};
}

TEST(Snapshot, GoesBackFromItsEndToItsPeak) {
  const auto history = snapshot_history(snapshot_by_hand(), 16);
  const auto& peak = history["peak"];
  EXPECT_EQ(peak["allocated"], 180);
  EXPECT_EQ(peak["peak_ns"], 1000);
  EXPECT_EQ(peak["categories"],
            Json::parse(R"({"activation": 50, "parameter": 100, "temporary": 30})"));
  ASSERT_EQ(peak["layers"].size(), 2u);
  EXPECT_EQ(peak["layers"][0]["module"], "b");
  EXPECT_EQ(peak["layers"][0]["bytes"], 130);
  EXPECT_EQ(peak["layers"][0]["temporary"], 30);
  EXPECT_EQ(peak["rows"][0]["count"], 1);
  std::vector<int64_t> allocated;
  for (const auto& point : history["curve"]["points"])
    allocated.push_back(point["allocated"].get<int64_t>());
  EXPECT_THAT(allocated, testing::ElementsAre(150, 180, 80, 50, 70));
  EXPECT_EQ(history["curve"]["categories"]["parameter"], Json::parse("[100, 100, 0, 0, 0]"));
  // What is not there, or is something else, is nothing.
  for (const char* text : {"{}", R"({"segments": 3, "device_traces": [[1, {"action": 2}]]})",
                           R"({"segments": [{"blocks": [{"state": "active_allocated"}]}]})"})
    EXPECT_EQ(snapshot_history(Json::parse(text), 16)["peak"]["allocated"], 0) << text;
}

// A run that was not traced has its memory pages from its snapshot.
TEST(Snapshot, StandsInForATrace) {
  const Scratch folder;
  auto snapshot = snapshot_by_hand();
  snapshot["triptych"] = {{"rank", 3}};
  write_file_atomically(folder / "snapshot_1.json", dump_json(snapshot));
  write_file_atomically(folder / "broken.pickle", "cos\nsystem\n");
  const Queries queries(load_run(folder.path()));
  EXPECT_EQ(queries.memory_peak({.rank = 3})["allocated"], 180);
  EXPECT_EQ(queries.memory_curve({.rank = 3}, 100)["rank"], 3);
  EXPECT_EQ(queries.memory_categories({})["rows"].size(), 3u);
  EXPECT_THROW(queries.memory_peak({.rank = 4}), Error);
  const auto summary = queries.summary_document({}, 1);
  ASSERT_EQ(summary["memory"].size(), 1u);
  EXPECT_EQ(summary["memory"][0]["layers"].size(), 1u);
  EXPECT_EQ(summary["unreadable"].size(), 1u);
  EXPECT_THAT(report_text(summary, 1), HasSubstr("snapshot_1.json"));
  EXPECT_EQ(memory_layers_table(summary)[0]["module"], "b");
}

// What a run knows of its blocks counts more than what their lives suggest.
TEST(Memory, CategoriesAndModulesAreTheRunsOwn) {
  const Scratch folder;
  const auto event = [](int64_t t, int64_t address, int64_t bytes, int64_t total,
                        const char* category, const char* module) {
    return fmt::format(
        R"({{"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": {},
 "args": {{"Addr": {}, "Bytes": {}, "Total Allocated": {}, "Device Type": 0, "Device Id": -1,
 "Category": "{}", "Module": "{}"}}}})",
        t, address, bytes, total, category, module);
  };
  write_file_atomically(folder / "rank-0_1.1.pt.trace.json",
                        "{\"traceEvents\": [" + event(10, 64, 100, 100, "parameter", "layers.0") +
                            "," + event(20, 256, 50, 150, "activation", "layers.1") + "," +
                            event(30, 256, -50, 100, "activation", "layers.1") + "]}");
  const Queries queries(load_run(folder.path()));
  const auto peak = queries.memory_peak({});
  EXPECT_EQ(peak["allocated"], 150);
  EXPECT_EQ(peak["categories"], Json::parse(R"({"activation": 50, "parameter": 100})"));
  ASSERT_EQ(peak["layers"].size(), 2u);
  EXPECT_EQ(peak["layers"][0]["module"], "layers.0");
  EXPECT_EQ(peak["layers"][1]["activation"], 50);
}

// ---- a real trace

TEST(RealTrace, TwoGlooRanks) {
  const auto run = load_run(fs::path(source_dir()) / "tests/insight/two_gloo_ranks");
  ASSERT_EQ(run->ranks(), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(run->world_size(), 2);
  const auto steps = step_times(*run);
  ASSERT_EQ(steps.size(), 6u);
  for (const auto& s : steps) {
    EXPECT_EQ(s.total, s.compute_only + s.overlapped + s.exposed + s.free + s.preparing);
    EXPECT_GT(s.compute, 0);
    EXPECT_GT(s.communication, 0);
  }
  const auto calls = match_calls(*run);
  EXPECT_EQ(calls.source, "gloo");
  EXPECT_TRUE(calls.mismatches.empty());
  int64_t reduces = 0, messages = 0, bytes = 0;
  for (const auto& call : calls.calls) {
    reduces += call.type == "all_reduce";
    messages += call.type == "send_recv";
    bytes += call.type == "all_reduce" ? call.bytes : 0;
    EXPECT_EQ(call.parts.size(), 2u);
  }
  EXPECT_EQ(reduces, 12);  // four parameters, three steps
  EXPECT_EQ(messages, 3);
  EXPECT_EQ(bytes, 3 * 4 * (32 * 64 + 64 + 64 * 8 + 8));  // all gradients in fp32
  EXPECT_GT(Queries(run).memory_peak({})["allocated"].get<int64_t>(), 0);
  EXPECT_TRUE(Queries(run).findings({})["findings"].empty());
}

// ---- the command

struct Output {
  int status;
  std::string text;
};
Output summary(std::vector<std::string> words) {
  words.insert(words.begin(), {"profile", "summary"});
  testing::internal::CaptureStdout();
  const std::vector<Command> commands = {profile_command()};
  const int status = run_command_line(commands, words);
  return {status, testing::internal::GetCapturedStdout()};
}

TEST(ProfileSummary, TextJsonCsvAndStatus) {
  Scratch folder;
  write_synthetic_run({.data = 4, .steps = 6, .slow_rank = 2}, folder.path() / "traces", true);
  std::ofstream(folder.path() / "metrics.jsonl")
      << "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": \"NaN\"}\n{\"step\": 3";
  const auto where = folder.path().string();
  const auto text = summary({where});
  EXPECT_EQ(text.status, 0);
  EXPECT_THAT(text.text, HasSubstr("slow_rank: rank 2 computes"));
  for (size_t at = 0; at < text.text.size();) {
    const auto end = text.text.find('\n', at);
    EXPECT_LE(end - at, 100u) << text.text.substr(at, end - at);
    at = end + 1;
  }
  const auto json = Json::parse(summary({where, "--json"}).text);
  ASSERT_EQ(json["steps"].size(), 24u);
  for (const auto& s : json["steps"])
    EXPECT_EQ(s["total_ns"].get<int64_t>(),
              s["compute_only_ns"].get<int64_t>() + s["overlapped_ns"].get<int64_t>() +
                  s["exposed_comm_ns"].get<int64_t>() + s["free_ns"].get<int64_t>() +
                  s["preparing_ns"].get<int64_t>());
  EXPECT_EQ(json["findings"][0]["kind"], "slow_rank");
  EXPECT_EQ(json["findings"][0]["rank"], 2);
  const auto one = Json::parse(summary({where, "--json", "--rank", "1", "--step", "11"}).text);
  EXPECT_EQ(one["steps"].size(), 1u);
  EXPECT_EQ(summary({where, "--fail-if", "findings > 0"}).status, 1);
  EXPECT_EQ(summary({where, "--fail-if", "exposed_comm>0.99"}).status, 0);
  EXPECT_EQ(summary({where, "--fail-if", "nonsense>1"}).status, 2);
  const auto tables = folder.path() / "tables";
  EXPECT_EQ(summary({where, "--csv", tables.string()}).status, 0);
  for (const auto& name : table_names()) EXPECT_TRUE(fs::exists(tables / (name + ".csv"))) << name;
  std::string line;
  std::ifstream trace_time(tables / "step_trace_time.csv");
  std::getline(trace_time, line);
  EXPECT_THAT(line, HasSubstr("Step,Type,Index,Computing,Communication(Not "
                              "Overlapped),Overlapped,Communication,Free,Stage,Bubble"));
  const auto run = load_run(folder.path());
  const auto scalars = Queries(run).scalars({});
  EXPECT_EQ(scalars["values"]["loss"], Json::parse("[2.5, null]"));
  EXPECT_EQ(summary({(folder.path() / "nothing").string()}).status, 2);
}

TEST(Csv, QuotesAndDefusesFormulas) {
  const auto csv = to_csv(Json::parse(R"({"rows":[{"a":"=1+1","b":"x,\"y\""},{"a":3,"c":null}]})"));
  EXPECT_EQ(csv, "a,b,c\r\n'=1+1,\"x,\"\"y\"\"\",\r\n3,,\r\n");
}

}  // namespace
}  // namespace triptych::insight

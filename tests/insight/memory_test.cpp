// What is alive at the peak; and a trace that names as many categories as it has blocks: what is
// answered does not grow with them.

#include <gtest/gtest.h>

#include <fstream>

#include "base/format.h"
#include "insight/memory_categories.h"
#include "insight/queries.h"
#include "insight/snapshot_curve.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

constexpr int kCategories = 400;

/// Block i has i + 1 bytes, a category of its own, and lives to the end.
std::string many_categories() {
  std::string events;
  int64_t total = 0;
  for (int i = 0; i < kCategories; ++i) {
    total += i + 1;
    events += fmt::format(
        R"({{"ph":"i","cat":"cpu_instant_event","name":"[memory]","pid":1,"tid":1,"ts":{},"args":
           {{"Addr":{},"Bytes":{},"Total Allocated":{},"Device Type":0,"Device Id":-1,
            "Category":"kind {}","Module":"layers.{}"}}}},)",
        10 * i, 4096 * (i + 1), i + 1, total, i, i % 3);
  }
  return "{\"traceEvents\":[" + events.substr(0, events.size() - 1) + "]}";
}

int64_t sum_of(const Json& categories) {
  int64_t sum = 0;
  for (const auto& [name, bytes] : categories.items()) sum += bytes.get<int64_t>();
  return sum;
}

constexpr int64_t kAll = int64_t{kCategories} * (kCategories + 1) / 2;
/// Bytes of the 16 largest.
constexpr int64_t kLargest = 16 * kCategories - 15 * 16 / 2;

TEST(Memory, PeakListsWhatLives) {
  Scratch folder;
  const auto memory = [](int ts, int bytes, int addr, int total) {
    return R"({"ph":"i","name":"[memory]","pid":1,"tid":1,"ts":)" + std::to_string(ts) +
           R"(,"s":"t","args":{"Addr":)" + std::to_string(addr) + R"(,"Bytes":)" +
           std::to_string(bytes) + R"(,"Total Allocated":)" + std::to_string(total) +
           R"(,"Total Reserved":2000,"Device Type":0,"Device Id":-1}},)";
  };
  std::ofstream(folder.path() / "rank0.trace.json")
      << R"({"traceEvents":[{"ph":"X","cat":"user_annotation","name":"ProfilerStep#0","pid":1,"tid":1,"ts":0,"dur":100},
      {"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":5,"dur":20},)"
      << memory(6, 100, 1, 600) << memory(7, 300, 2, 900) << memory(20, -300, 2, 600)
      << memory(40, -500, 9, 100) << memory(50, -100, 1, 0) << "]}";
  const auto run = load_run(folder.path());
  const auto peak = Queries(run).memory_peak({});
  EXPECT_EQ(peak["allocated"], 900);
  EXPECT_EQ(peak["categories"]["before start"], 500);
  EXPECT_EQ(peak["categories"]["temporary"], 300);   // freed inside the operator that made it
  EXPECT_EQ(peak["categories"]["activation"], 100);  // lives beyond its operator, within the step
  EXPECT_EQ(peak["listed"], 900);
  const auto curve = Queries(run).memory_curve({}, 64);
  EXPECT_EQ(curve["peak"]["allocated"], 900);
  EXPECT_EQ(Queries(run).memory_allocations({})["total"], 3);
}

TEST(MemoryCategories, TheLargestAreToldApartAndTheRestAddedUp) {
  const Queries queries(run_of({many_categories()}));
  const auto curve = queries.memory_curve({}, 20000);
  const auto& categories = curve["categories"];
  ASSERT_EQ(categories.size(), kMostCategories + 1);
  EXPECT_TRUE(categories.contains(fmt::format("kind {}", kCategories - 1)));
  EXPECT_FALSE(categories.contains("kind 0"));
  for (size_t at = 0; at < curve["points"].size(); ++at) {
    int64_t sum = 0;
    for (const auto& [name, values] : categories.items()) sum += values[at].get<int64_t>();
    EXPECT_EQ(sum, curve["points"][at]["allocated"]) << at;
  }
  EXPECT_EQ(categories["other"].back(), kAll - kLargest);

  const auto peak = queries.memory_peak({});
  ASSERT_EQ(peak["categories"].size(), kMostCategories + 1);
  EXPECT_EQ(sum_of(peak["categories"]), kAll);
  EXPECT_EQ(peak["categories"]["other"], kAll - kLargest);
  ASSERT_EQ(peak["layers"].size(), 3u);
  int64_t other = 0;
  for (const auto& layer : peak["layers"]) {
    EXPECT_LE(layer.size(), kMostCategories + 1 + 3);  // and module, bytes, share
    other += layer.value("other", int64_t{0});
  }
  EXPECT_EQ(other, kAll - kLargest);
}

TEST(MemoryCategories, OfASnapshotLikewise) {
  Json events = Json::array();
  for (int i = 0; i < kCategories; ++i)
    events.push_back({{"action", "alloc"},
                      {"addr", 4096 * (i + 1)},
                      {"size", i + 1},
                      {"time_us", i},
                      {"category", fmt::format("kind {}", i)}});
  Json blocks = Json::array();
  for (int i = 0; i < kCategories; ++i)
    blocks.push_back(
        {{"size", i + 1}, {"state", "active_allocated"}, {"category", fmt::format("kind {}", i)}});
  Json segment, snapshot;
  segment["blocks"] = blocks;
  snapshot["segments"] = Json::array({segment});
  snapshot["device_traces"] = Json::array({events});
  const auto history = snapshot_history(snapshot, 1000);
  const auto& categories = history["curve"]["categories"];
  ASSERT_EQ(categories.size(), kMostCategories + 1);
  EXPECT_EQ(categories["other"].back(), kAll - kLargest);
  EXPECT_EQ(history["peak"]["categories"]["other"], kAll - kLargest);
}

/// Names that the tables use themselves.
TEST(MemoryCategories, NamesOfColumnsAreNone) {
  std::string events;
  int address = 0;
  for (const char* name : {"module", "bytes", "share", "activation"})
    events += fmt::format(
        R"({{"ph":"i","name":"[memory]","pid":1,"tid":1,"ts":1,"args":
           {{"Addr":{},"Bytes":8,"Device Type":0,"Device Id":-1,"Category":"{}","Module":"layers.0"}}}},)",
        ++address, name);
  const auto layer =
      Queries(run_of({"{\"traceEvents\":[" + events.substr(0, events.size() - 1) + "]}"}))
          .memory_peak({})["layers"][0];
  EXPECT_EQ(layer["module"], "layers.0");
  EXPECT_EQ(layer["bytes"], 32);
  EXPECT_EQ(layer["other"], 24);
  EXPECT_EQ(layer["activation"], 8);
}

}  // namespace
}  // namespace triptych::insight

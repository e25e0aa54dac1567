// What is said of a rank that computes longer than its peers, on traces by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/format.h"
#include "insight/queries.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

class SlowRank : public testing::Test {
 protected:
  /// Six steps of 1000 us in which a rank computes so long and then waits for the other in an
  /// all-reduce that ends at 900.
  void write(int rank, int compute_us, const std::string& mm) const {
    std::string events;
    for (int step = 0; step < 6; ++step) {
      const int begin = 1000 * step;
      const auto event = [&](const char* cat, const std::string& name, int ts, int dur,
                             const std::string& args) {
        events += fmt::format(
            R"({{"ph":"X","cat":"{}","name":"{}","pid":1,"tid":1,"ts":{},"dur":{},"args":{{{}}}}},)",
            cat, name, begin + ts, dur, args);
      };
      event("user_annotation", fmt::format("ProfilerStep#{}", step), 0, 1000, "");
      event("cpu_op", "aten::mm", 0, compute_us, "");
      event("mm_comm", "dp allreduce", compute_us, 900 - compute_us,
            fmt::format(R"("Collective name":"allreduce","Process Group Name":"data","Seq":{},
                           "Process Group Ranks":"[0, 1]","Bytes":64)",
                        step));
    }
    events.pop_back();
    std::ofstream(folder_.path() / fmt::format("rank{}.trace.json", rank)) << fmt::format(
        R"({{"distributedInfo":{{"rank":{},"world_size":2}},"mm":{{{}}},"traceEvents":[{}]}})",
        rank, mm, events);
  }
  Json findings() const { return Queries(load_run(folder_.path())).findings({})["findings"]; }

  /// `core_wait_ns` of all steps.
  static std::string waits(int us) {
    std::string list;
    for (int step = 0; step < 6; ++step)
      list += fmt::format(R"({}"{}":{})", step == 0 ? "" : ",", step, us * 1000);
    return "\"core_wait_ns\":{" + list + "}";
  }

  Scratch folder_;
};

TEST_F(SlowRank, WithoutMoreToGoByItsMachineIsToBeLookedAt) {
  write(0, 400, "");
  write(1, 600, "");
  const auto found = findings();
  ASSERT_EQ(found.size(), 1u) << found;
  EXPECT_EQ(found[0]["kind"], "slow_rank");
  EXPECT_EQ(found[0]["rank"], 1);
  EXPECT_FALSE(found[0]["evidence"].contains("shares_core"));
  EXPECT_THAT(found[0]["words"].get<std::string>(), HasSubstr("look at its clocks"));
}

TEST_F(SlowRank, ThatWaitsForItsCoreSharesIt) {
  write(0, 400, waits(10));
  write(1, 600, waits(150));
  const auto found = findings();
  ASSERT_EQ(found.size(), 1u) << found;
  EXPECT_EQ(found[0]["evidence"]["shares_core"], true);
  EXPECT_EQ(found[0]["evidence"]["core_wait_ns"], 150000);
  EXPECT_THAT(found[0]["words"].get<std::string>(),
              HasSubstr("waits 0.15 ms for a core: something else runs there"));
}

TEST_F(SlowRank, WhoseWaitIsEverybodysDoesNotShareIt) {
  write(0, 400, waits(140));
  write(1, 600, waits(150));
  const auto found = findings();
  ASSERT_EQ(found.size(), 1u) << found;
  EXPECT_EQ(found[0]["evidence"]["shares_core"], false);
}

TEST_F(SlowRank, IsNotAStageWithMoreWork) {
  write(0, 400, R"("coordinates":{"pipeline":0})");
  write(1, 600, R"("coordinates":{"pipeline":1})");
  EXPECT_EQ(findings().size(), 0u);
}

}  // namespace
}  // namespace triptych::insight

// The pipeline's chart: of a simulated run, and from scopes by hand: many of them, numbers that are
// none, stages that are missing.

#include "insight/pipeline.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/format.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

std::string scope(const std::string& name, int64_t ts_us, int64_t dur_us) {
  return fmt::format(R"({{"ph":"X","cat":"module","name":"{}","pid":1,"tid":1,"ts":{},"dur":{}}},)",
                     name, ts_us, dur_us);
}
std::string trace_of(const std::string& events) {
  return "{\"traceEvents\":[" + events.substr(0, events.size() - 1) + "]}";
}

TEST(Pipeline, BubbleOfTheSimulationIsTheory) {
  const Loaded l({.data = 1,
                  .pipeline = 4,
                  .steps = 3,
                  .layers = 4,
                  .micro_batches = 8,
                  .device = false,
                  .message_bytes = 1 << 10,
                  .noise = 0});
  const auto p = pipeline_json(*l.run, -1, std::nullopt);
  ASSERT_EQ(p["stages"].size(), 4u);
  EXPECT_DOUBLE_EQ(p["theory"]["bubble_share"].get<double>(), 3.0 / 11);
  // The messages' latency is all that is added.
  EXPECT_NEAR(p["bubble_share"].get<double>(), 3.0 / 11, 0.01);
  for (const auto& stage : p["stages"])
    EXPECT_EQ(stage["busy_ns"].get<int64_t>() + stage["bubble_ns"].get<int64_t>(),
              p["pipe_ns"].get<int64_t>());
  // Without links and noise the very order of these actions gives the formula; 1 %: F and B of one
  // stage are 1 to 2 only up to the noise in the medians.
  const auto& ideal = p["ideal"];
  ASSERT_TRUE(ideal.is_object());
  EXPECT_NEAR(ideal["bubble_share"].get<double>(), p["theory"]["bubble_share"].get<double>(), 0.01);
  EXPECT_LE(ideal["pipe_ns"].get<int64_t>(), p["pipe_ns"].get<int64_t>());
  EXPECT_EQ(theoretical_bubble("interleaved", 4, 8, 2), 3.0 / 19);
  EXPECT_EQ(theoretical_bubble("1f1b", 1, 8, 1), 0);
}

TEST(PipelineScopes, ManyOfOneStepAreDoneInSeconds) {
  constexpr int64_t kBatches = 50000;
  std::string events;
  for (int64_t m = 0; m < kBatches; ++m)
    events += scope(fmt::format("F stage 0 chunk 0 micro-batch {}", m), 40 * m, 10) +
              scope(fmt::format("B stage 0 chunk 0 micro-batch {}", m), 40 * m + 20, 15);
  const auto run = run_of({trace_of(events)});
  const auto begin = std::chrono::steady_clock::now();
  const auto p = pipeline_json(*run, -1, std::nullopt);
  // 0.5 s on the slowest machine at hand; a median taken anew for each scope takes minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  const auto& stage = p["stages"][0];
  EXPECT_EQ(stage["actions"].size(), static_cast<size_t>(2 * kBatches));
  ASSERT_EQ(stage["gaps"].size(), static_cast<size_t>(2 * kBatches - 1));
  EXPECT_EQ(stage["gaps"][0]["begin_ns"], 10000);
  EXPECT_EQ(stage["gaps"][0]["end_ns"], 20000);
  EXPECT_EQ(p["ideal"]["pipe_ns"], 25000 * kBatches);  // one after another, without the gaps
}

TEST(PipelineScopes, NumbersThatAreNoneMakeNoAction) {
  for (const char* number :
       {"-1", "2147483649", "9223372036854775807", "-9223372036854775808", "x", ""}) {
    std::string events;
    events += scope(fmt::format("F stage {} chunk 0 micro-batch 0", number), 0, 10);
    events += scope(fmt::format("F stage 0 chunk {} micro-batch 0", number), 20, 10);
    events += scope(fmt::format("F stage 0 chunk 0 micro-batch {}", number), 40, 10);
    EXPECT_TRUE(pipeline_json(*run_of({trace_of(events)}), -1, {}).contains("empty")) << number;
  }
  // The largest that count: their products fit.
  const auto p = pipeline_json(
      *run_of(
          {trace_of(scope("F stage 2147483648 chunk 2147483648 micro-batch 2147483648", 0, 10))}),
      -1, {});
  EXPECT_EQ(p["stages"][0]["stage"], 2147483648);
  EXPECT_EQ(p["theory"]["chunks"], 2147483649);
}

/// Stages 0 and 3 of four, two chunks each. The first forward of stage 3's chunk is position 3, the
/// first of stage 0's second chunk position 4: it waits for the former.
TEST(PipelineScopes, ChunksFollowAllStagesAlsoThoseNotRecorded) {
  const auto first = scope("F stage 0 chunk 0 micro-batch 0", 0, 10) +
                     scope("F stage 0 chunk 1 micro-batch 0", 70, 10);
  const auto last = scope("F stage 3 chunk 0 micro-batch 0", 50, 15);
  const auto p = pipeline_json(*run_of({trace_of(first), trace_of(last)}), -1, {});
  ASSERT_EQ(p["stages"].size(), 2u);
  EXPECT_EQ(p["stages"][0]["gaps"][0]["cause"], "previous stage late");
  // So it does without links: 15 of stage 3, then 10.
  EXPECT_EQ(p["ideal"]["pipe_ns"], 25000);
}

}  // namespace
}  // namespace triptych::insight

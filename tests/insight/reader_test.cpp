#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "base/error.h"
#include "base/memory.h"
#include "insight/trace_reader.h"
#include "synthetic.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

std::string events(std::string_view list) {
  return "{\"schemaVersion\": 1, \"traceEvents\": [" + std::string(list) + "]}";
}

TEST(TraceReader, ReadsOneEvent) {
  const auto t = read_trace_text(
      events(R"({"ph":"X","cat":"cpu_op","name":"aten::add","pid":1,"tid":2,"ts":5.001,"dur":2,"args":{"External id":7}})"),
      "t.json");
  ASSERT_EQ(t.num_events(), 1u);
  EXPECT_EQ(t.ts(0), 5001);
  EXPECT_EQ(t.dur(0), 2000);
  EXPECT_EQ(t.name(0), "aten::add");
  EXPECT_EQ(t.external_id(0), 7u);
  EXPECT_EQ(t.arguments(0)["External id"], 7);
  EXPECT_FALSE(t.truncated());
}

}  // namespace
}  // namespace triptych::insight

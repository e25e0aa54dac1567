// metrics.jsonl and event files.
#include <gmock/gmock.h>

#include <fstream>

#include "base/files.h"
#include "base/metrics.h"
#include "base/tensorboard.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

class Records : public testing::Test {
 protected:
  const Scratch folder_;
};

TEST_F(Records, MetricsAreFlushedRowByRow) {
  MetricsFile metrics(folder_ / "metrics.jsonl");
  metrics.write({{"step", 1}, {"loss", 1.0 / 3}});
  EXPECT_EQ(read_file(folder_ / "metrics.jsonl"), "{\"step\":1,\"loss\":0.3333333333333333}\n");
}

TEST_F(Records, ResumeTakesOutLaterRowsOnly) {
  const fs::path path = folder_ / "metrics.jsonl";
  {
    MetricsFile metrics(path);
    for (int step = 1; step <= 5; ++step) metrics.write({{"step", step}, {"loss", 0.5}});
    metrics.write({{"step", 3}, {"validation_loss", 1}});
  }
  std::ofstream(path, std::ios::app) << "{\"step\":6,\"lo";  // cut short by a crash
  MetricsFile metrics(path);
  metrics.truncate_after_step(3);
  metrics.write({{"step", 4}});
  EXPECT_EQ(read_file(path),
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n{\"step\":3,\"loss\":0.5}\n"
            "{\"step\":3,\"validation_loss\":1}\n{\"step\":4}\n");
  EXPECT_EQ(metrics.last_step_with("validation_loss"), 3);
  EXPECT_EQ(metrics.last_step_with("step"), 4);
  EXPECT_EQ(metrics.last_step_with("loss"), 3);
  EXPECT_EQ(metrics.last_step_with("lr"), -1);
}

TEST(Events, BytesAreThoseOfTheFormat) {
  // Put together by hand: fixed64 1.5, "brain.Event:2" as field 3.
  const std::string version(
      "\x09\0\0\0\0\0\0\xF8\x3F\x1A\x0D"
      "brain.Event:2",
      24);
  EXPECT_EQ(version_event(1.5), version);
  // Field 2 = 300 as a varint, field 5 = summary{value{tag "a", simple_value 2.5}}.
  const std::string scalar(
      "\x09\0\0\0\0\0\0\xF8\x3F\x10\xAC\x02\x2A\x0A\x0A\x08\x0A\x01"
      "a\x15\0\0\x20\x40",
      24);
  const std::pair<std::string, double> value{"a", 2.5};
  EXPECT_EQ(scalar_event(1.5, 300, {&value, 1}), scalar);
}

TEST(Events, RecordsAreFramedWithMaskedCrcs) {
  // CRC-32C of "123456789" is 0xE3069283 (the catalogue's check value); masked:
  // ((crc >> 15) | (crc << 17)) + 0xA282EAD8 = 0xC78AB0E5 (mod 2^32).
  const std::string record = event_record("123456789");
  ASSERT_EQ(record.size(), 8u + 4 + 9 + 4);
  EXPECT_EQ(record.substr(0, 8), std::string("\x09\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(12, 9), "123456789");
  EXPECT_EQ(record.substr(21), std::string("\xE5\xB0\x8A\xC7", 4));
}

TEST_F(Records, WriterMakesAFileThatStartsWithTheVersion) {
  EventWriter writer(folder_ / "tensorboard");
  const std::pair<std::string, double> value{"loss", 0.25};
  writer.write(7, {&value, 1});
  const std::string text = read_file(writer.path());
  EXPECT_EQ(text.substr(12 + 11, 13), "brain.Event:2");
  EXPECT_NE(text.find("loss"), std::string::npos);
  EXPECT_EQ(writer.path().filename().string().rfind("events.out.tfevents.", 0), 0u);
}

}  // namespace
}  // namespace triptych

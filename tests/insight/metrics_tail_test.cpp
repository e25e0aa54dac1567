#include "insight/metrics_tail.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/scratch.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;

class MetricsTail : public testing::Test {
 protected:
  void append(std::string_view text) {
    std::ofstream(path, std::ios::app | std::ios::binary) << text;
  }
  Json rows(uint64_t from, int64_t limit = 1000) {
    return metrics_rows(path, metrics_mark(path).id, from, limit);
  }

  const Scratch folder;
  fs::path path = folder / "metrics.jsonl";
};

TEST_F(MetricsTail, GivesWholeRowsAndGoesOn) {
  append("{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"lo");
  Json first = rows(0);
  ASSERT_EQ(first["rows"].size(), 1u);
  EXPECT_EQ(first["rows"][0]["loss"], 2.5);
  append("ss\":2.25}\n");
  const Json second = rows(first["next"].get<uint64_t>());
  ASSERT_EQ(second["rows"].size(), 1u);
  EXPECT_EQ(second["rows"][0]["step"], 2);
  EXPECT_EQ(second["next"], second["size"]);
}

TEST_F(MetricsTail, LimitsRows) {
  for (int i = 0; i < 10; ++i) append("{\"step\":" + std::to_string(i) + "}\n");
  const Json first = rows(0, 4);
  EXPECT_EQ(first["rows"].size(), 4u);
  EXPECT_EQ(rows(first["next"].get<uint64_t>(), 100)["rows"][0]["step"], 4);
}

TEST_F(MetricsTail, BeginsAgainWhenTheFileIsAnother) {
  append("{\"step\":1}\n{\"step\":2}\n");
  const MetricsMark before = metrics_mark(path);
  std::ofstream(folder / "new") << "{\"step\":1}\n";
  fs::rename(folder / "new", path);
  EXPECT_NE(metrics_mark(path), before);
  const Json after = metrics_rows(path, before.id, before.size, 100);
  EXPECT_EQ(after["from"], 0);
  EXPECT_EQ(after["rows"].size(), 1u);
}

TEST_F(MetricsTail, SkipsWhatIsNoRow) {
  append("nonsense\n[1,2]\n{\"a\":{\"b\":1},\"step\":3}\n\n\x01\xff\xfe\n" +
         std::string(100000, '[') + "\n{\"step\":NaN}\n{\"step\":4}\n");
  const Json all = rows(0);
  ASSERT_EQ(all["rows"].size(), 2u);
  EXPECT_EQ(all["rows"][0], Json({{"step", 3}}));  // without the nested value
  EXPECT_EQ(all["skipped"], 5);
}

TEST_F(MetricsTail, PassesALineWithoutEnd) {
  append(std::string(5 << 20, 'x'));
  const Json first = rows(0);
  EXPECT_EQ(first["rows"].size(), 0u);
  EXPECT_GT(first["next"].get<uint64_t>(), 0u);
}

TEST(MetricsMarks, NoFile) {
  EXPECT_EQ(metrics_mark(""), MetricsMark{});
  EXPECT_EQ(metrics_mark("/does/not/exist"), MetricsMark{});
  EXPECT_EQ(metrics_mark("/tmp"), MetricsMark{});  // a folder is no file
}

}  // namespace
}  // namespace triptych::insight

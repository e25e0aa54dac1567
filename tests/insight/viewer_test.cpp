#include "insight/viewer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "insight/assets.h"
#include "insight/gzip.h"
#include "insight/queries.h"
#include "loaded.h"
#include "support/scratch.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string from_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) break;
    group = group << 6 | static_cast<uint32_t>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 0xff);
  }
  return bytes;
}

/// A made-up run of four ranks in two stages, read once for all tests.
class ViewerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = fs::temp_directory_path() / ("viewer_test." + std::to_string(getpid()));
    fs::create_directories(folder / "run/traces");
    write_synthetic_run({.data = 2, .pipeline = 2, .steps = 3}, folder / "run/traces");
    std::ofstream(folder / "run/metrics.jsonl") << "{\"step\":1,\"loss\":2.5}\n";
    std::ofstream(folder / "secret.json") << "{\"traceEvents\":[]}";
    viewer =
        std::make_unique<Viewer>(ViewerOptions{.where = {folder / "run"}, .write_index = false});
    viewer->wait();
  }
  static void TearDownTestSuite() {
    viewer.reset();
    fs::remove_all(folder);
  }
  static HttpReply ask(const std::string& path, std::map<std::string, std::string> params = {}) {
    return viewer->answer({.path = "/api/v1/" + path, .params = std::move(params)});
  }
  static Json json(const std::string& path, std::map<std::string, std::string> params = {}) {
    const HttpReply reply = ask(path, std::move(params));
    EXPECT_EQ(reply.status, 200) << path << ": " << reply.body;
    return Json::parse(reply.body);
  }

  static inline fs::path folder;
  static inline std::unique_ptr<Viewer> viewer;
};

TEST_F(ViewerTest, ServesThePage) {
  EXPECT_THAT(viewer->answer({.path = "/", .params = {}}).body, HasSubstr("app.js"));
  for (const char* name : {"/app.js", "/style.css", "/icon.svg"}) {
    const HttpReply reply = viewer->answer({.path = name, .params = {}});
    EXPECT_EQ(reply.status, 200);
    EXPECT_GT(reply.body.size(), 100u) << name;
    EXPECT_FALSE(reply.etag.empty());
  }
  for (const char* path :
       {"/secret.json", "/../secret.json", "/run/metrics.jsonl", "/api/v1/", "/api/v1/runs/",
        "/api/v2/runs", "//etc/passwd", "/api/v1/../../etc/passwd"}) {
    EXPECT_EQ(viewer->answer({.path = path, .params = {}}).status, 404) << path;
  }
}

TEST_F(ViewerTest, EveryDocumentIsAnswered) {
  for (const char* path : {"info",
                           "runs",
                           "summary",
                           "findings",
                           "diagnostics",
                           "tracks",
                           "ops",
                           "kernels",
                           "modules",
                           "comm/groups",
                           "comm/matrix",
                           "comm/calls",
                           "comm/ranks",
                           "comm/links",
                           "comm/alignment",
                           "parallel/layout",
                           "pipeline",
                           "idle",
                           "flame",
                           "critical_path",
                           "memory/curve",
                           "memory/categories",
                           "memory/peak",
                           "memory/allocations",
                           "memory/snapshot",
                           "document",
                           "metrics",
                           "diff"}) {
    EXPECT_TRUE(json(path).is_object()) << path;
  }
}

TEST_F(ViewerTest, CsvOfEveryTable) {
  const Queries queries(load_run(folder / "run"));
  for (const std::string& table : table_names()) {
    const HttpReply reply = ask("export.csv", {{"table", table}});
    EXPECT_EQ(reply.status, 200) << table;
    EXPECT_EQ(reply.download, table + ".csv");
    // A line for the names and one a row, a cell for each name.
    const auto rows = table_by_name(queries, table, {})["rows"];
    std::vector<std::string> lines;
    std::istringstream text(reply.body);
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    ASSERT_EQ(lines.size(), rows.size() + 1) << table;
    if (table != "findings" && table != "diagnostics") {  // of this run there are none
      ASSERT_FALSE(rows.empty()) << table;
    }
    for (const auto& row : rows) {
      for (const auto& [name, value] : row.items()) {
        if (!value.is_structured()) {
          EXPECT_THAT("," + lines[0], HasSubstr("," + name)) << table;
        }
      }
    }
  }
  // The values stand below their names.
  const auto kernels = ask("export.csv", {{"table", "kernels"}}).body;
  EXPECT_THAT(kernels, testing::StartsWith("name,class,calls,total_ns,"));
  const auto table = table_by_name(queries, "kernels", {});
  for (const auto& row : table["rows"])
    EXPECT_THAT(kernels,
                HasSubstr(fmt::format("\r\n{},{},{},{},", row["name"].get<std::string>(),
                                      row["class"].get<std::string>(), row["calls"].get<int64_t>(),
                                      row["total_ns"].get<int64_t>())));
  EXPECT_THROW(ask("export.csv", {{"table", "../secret"}}), UsageError);
}

TEST_F(ViewerTest, RefusesHostileParameters) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"tiles", "1,,2"},
                                                        {"tiles", "a"},
                                                        {"tiles", "1;2"},
                                                        {"tiles", "99999999999999999999"},
                                                        {"tracks", "-1"},
                                                        {"level", "51"},
                                                        {"level", "-1"},
                                                        {"level", "1e3"}}) {
    EXPECT_THROW(ask("tiles", {{name, value}}), UsageError) << name << "=" << value;
  }
  std::string many = "0";
  for (int i = 0; i < 2000; ++i) many += ",0";
  EXPECT_THROW(ask("tiles", {{"tiles", "0"}, {"tracks", many}}), UsageError);
  EXPECT_THROW(ask("range", {{"t0", "5"}, {"t1", "5"}}), UsageError);
  EXPECT_THROW(ask("range", {{"t0", "9223372036854775807"}}), UsageError);
  EXPECT_THROW(ask("ops", {{"limit", "1000000000"}}), UsageError);
  EXPECT_THROW(ask("strings", {{"file", "999"}}), UsageError);
  EXPECT_THROW(ask("summary", {{"rank", "x"}}), UsageError);
  EXPECT_THROW(ask("flame", {{"t0", "5"}, {"t1", "5"}}), UsageError);
  EXPECT_THROW(ask("flame", {{"tracks", "0,x"}}), UsageError);
  EXPECT_THROW(ask("flame", {{"tracks", many}}), UsageError);
  EXPECT_THROW(ask("flame", {{"step", "x"}}), UsageError);
  for (const char* points : {"0", "-5", "1e3", "20001", "9223372036854775808"})
    EXPECT_THROW(ask("memory/curve", {{"points", points}}), UsageError) << points;
  EXPECT_THROW(ask("memory/snapshot", {{"number", "-1"}}), UsageError);
}

/// Ids that nobody gave out must not be followed into memory that is not ours.
TEST_F(ViewerTest, UnknownIdsAreErrorsOrEmpty) {
  const auto harmless = [](const std::string& path,
                           const std::map<std::string, std::string>& params) {
    try {
      EXPECT_LE(ask(path, params).body.size(), 100000u) << path;
    } catch (const Error&) {
    }
  };
  for (const char* id :
       {"0", "4294967295", "4294967296", "4503599627370496", "9223372036854775807"}) {
    harmless(std::string("slice/") + id, {});
    harmless("same_name", {{"slice", id}});
  }
  for (const char* track : {"65535", "65536", "4294967295"}) {
    harmless("tiles", {{"level", "20"},
                       {"tiles", "0,1,-1,9223372036854775807,-9223372036854775808"},
                       {"tracks", track}});
    harmless("slices", {{"track", track}});
    harmless("counters", {{"track", track}, {"t0", "0"}, {"t1", "1000"}});
    harmless("range", {{"tracks", track}, {"t0", "0"}, {"t1", "1000"}});
    harmless("flows", {{"tracks", track}, {"t0", "0"}, {"t1", "1000"}});
    harmless("flame", {{"tracks", track}, {"t0", "0"}, {"t1", "1000"}});
  }
  for (const char* query : {"", "/", "/(/", "/(a+)+$/", ":", "a:", ":b", "\xff\xfe"})
    harmless("search", {{"q", query}});
}

TEST_F(ViewerTest, EveryTileOfEveryLevelHasItsForm) {
  const Json tracks = json("tracks");
  const uint32_t track = tracks["ranks"][0]["processes"][0]["tracks"][0]["id"].get<uint32_t>();
  const HttpReply reply =
      ask("tiles", {{"level", "20"}, {"tiles", "0,1"}, {"tracks", std::to_string(track)}});
  ASSERT_GE(reply.body.size(), 8u);
  EXPECT_EQ(reply.body.substr(0, 4), "TILE");
  EXPECT_EQ(reply.type, "application/octet-stream");
}

TEST_F(ViewerTest, ReportHoldsThePlacesOfItsFindings) {
  const fs::path slow = folder / "slow/traces";
  write_synthetic_run({.data = 4, .steps = 5, .slow_rank = 2}, slow);
  Viewer other({.where = {folder / "slow"}, .write_index = false});
  other.wait();
  const auto findings =
      Json::parse(other.answer({.path = "/api/v1/findings", .params = {}}).body)["findings"];
  ASSERT_EQ(findings.size(), 1u);
  const auto html = other.answer({.path = "/api/v1/export.html", .params = {}}).body;
  constexpr std::string_view kBegin = "data-packed=\"gzip\">\n";
  const auto begin = html.find(kBegin) + kBegin.size();
  const auto saved = Json::parse(
      gunzip(from_base64(html.substr(begin, html.find('\n', begin) - begin)), 64 << 20));
  const auto key = "slice/" + std::to_string(findings[0]["slice"].get<uint64_t>());
  ASSERT_TRUE(saved["documents"].contains(key));
  EXPECT_EQ(saved["documents"][key]["rank"], 2);
}

TEST_F(ViewerTest, ReportStandsAlone) {
  const HttpReply reply = ask("export.html");
  EXPECT_THAT(reply.body, HasSubstr("id=\"report-data\""));
  EXPECT_THAT(reply.body, HasSubstr("default-src 'none'"));
  EXPECT_THAT(reply.body, Not(HasSubstr("src=\"")));
  EXPECT_THAT(reply.body, Not(HasSubstr("<link")));
  EXPECT_LT(reply.body.size(), 15u << 20);
}

TEST(ViewerAssets, CanStandInsideAnElement) {
  EXPECT_THAT(std::string(page_asset("app.js")), Not(HasSubstr("</script")));
  EXPECT_THAT(std::string(page_asset("app.js")), Not(HasSubstr("<!--")));
  EXPECT_THAT(std::string(page_asset("style.css")), Not(HasSubstr("</style")));
  EXPECT_EQ(page_asset("../secret"), "");
}

TEST(ViewerErrors, NothingThere) { EXPECT_THROW(Viewer({.where = {"/does/not/exist"}}), Error); }

TEST(ViewerLinks, MetricsOutsideAreNotServed) {
  const Scratch top;
  fs::create_directories(top / "run/traces");
  write_synthetic_run({.data = 1, .steps = 2}, top / "run/traces");
  std::ofstream(top / "secret.jsonl") << "{\"step\":1,\"password\":\"x\"}\n";
  fs::create_symlink(top / "secret.jsonl", top / "run/metrics.jsonl");
  Viewer viewer({.where = {top / "run"}, .write_index = false});
  viewer.wait();
  const HttpReply reply = viewer.answer({.path = "/api/v1/metrics", .params = {}});
  EXPECT_THAT(reply.body, Not(HasSubstr("password")));
}

}  // namespace
}  // namespace triptych::insight

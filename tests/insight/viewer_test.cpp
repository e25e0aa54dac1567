#include "insight/viewer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "insight/assets.h"
#include "synthetic.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

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
  for (const std::string& table : table_names()) {
    const HttpReply reply = ask("export.csv", {{"table", table}});
    EXPECT_EQ(reply.status, 200) << table;
    EXPECT_EQ(reply.download, table + ".csv");
  }
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
  const fs::path top = fs::temp_directory_path() / ("viewer_links." + std::to_string(getpid()));
  fs::create_directories(top / "run/traces");
  write_synthetic_run({.data = 1, .steps = 2}, top / "run/traces");
  std::ofstream(top / "secret.jsonl") << "{\"step\":1,\"password\":\"x\"}\n";
  fs::create_symlink(top / "secret.jsonl", top / "run/metrics.jsonl");
  Viewer viewer({.where = {top / "run"}, .write_index = false});
  viewer.wait();
  const HttpReply reply = viewer.answer({.path = "/api/v1/metrics", .params = {}});
  EXPECT_THAT(reply.body, Not(HasSubstr("password")));
  fs::remove_all(top);
}

}  // namespace
}  // namespace triptych::insight

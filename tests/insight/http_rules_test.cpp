#include "insight/http_rules.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "insight/gzip.h"
#include "support/scratch.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;

TEST(HttpRules, HostsOfALoopbackServer) {
  for (const char* good :
       {"127.0.0.1", "127.0.0.1:80", "localhost:4000", "LOCALHOST", "[::1]:4000", "127.9.9.9:1"}) {
    EXPECT_TRUE(host_allowed(good, "127.0.0.1")) << good;
  }
  for (const char* bad :
       {"", "evil.example", "evil.example:4000", "127.0.0.1.evil.example", "localhost.evil.example",
        "10.0.0.1", "127.0.0.1:", "127.0.0.1:8x", "[::1", "[::1]x", "127.0.0.1:1:2", "127.evil",
        "user@127.0.0.1", " 127.0.0.1"}) {
    EXPECT_FALSE(host_allowed(bad, "127.0.0.1")) << bad;
  }
}

TEST(HttpRules, HostsOfAnOpenServer) {
  EXPECT_TRUE(host_allowed("10.0.0.1:4000", "0.0.0.0"));
  EXPECT_TRUE(host_allowed("[fd00::1]:4000", "::"));
  EXPECT_TRUE(host_allowed("node7.cluster:4000", "node7.cluster"));
  EXPECT_FALSE(host_allowed("evil.example:4000", "0.0.0.0"));
}

TEST(HttpRules, Loopback) {
  EXPECT_TRUE(is_loopback("127.0.0.1") && is_loopback("::1") && is_loopback("localhost"));
  EXPECT_FALSE(is_loopback("0.0.0.0") || is_loopback("::") ||
               is_loopback("127.0.0.1.evil.example") || is_loopback("10.1.1.1"));
}

TEST(HttpRules, Origins) {
  EXPECT_TRUE(origin_allowed("", "127.0.0.1:4000"));
  EXPECT_TRUE(origin_allowed("http://127.0.0.1:4000", "127.0.0.1:4000"));
  for (const char* bad :
       {"null", "http://127.0.0.1:4001", "http://127.0.0.1", "http://evil.example",
        "file://127.0.0.1:4000", "http://127.0.0.1:4000/x", "127.0.0.1:4000"}) {
    EXPECT_FALSE(origin_allowed(bad, "127.0.0.1:4000")) << bad;
  }
}

TEST(HttpRules, Comparison) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  for (const char* other : {"", "secre", "secrets", "secreT", "Secret"}) {
    EXPECT_FALSE(equal_in_constant_time(other, "secret")) << other;
    EXPECT_FALSE(equal_in_constant_time("secret", other)) << other;
  }
}

TEST(HttpRules, Cookies) {
  EXPECT_EQ(cookie_value("a=1; token=xyz; b=2", "token"), "xyz");
  EXPECT_EQ(cookie_value("token=xyz", "token"), "xyz");
  EXPECT_EQ(cookie_value("nottoken=1; token2=2", "token"), "");
  EXPECT_EQ(cookie_value("", "token"), "");
}

TEST(HttpRules, TokensDiffer) {
  const std::string a = random_token(), b = random_token();
  EXPECT_EQ(a.size(), 32u);
  EXPECT_NE(a, b);
}

TEST(HttpRules, PathsStayInside) {
  const Scratch top;
  const fs::path root = top / "root";
  fs::create_directories(root / "sub");
  fs::create_directories(top / "root2");
  std::ofstream(root / "sub/file") << "x";
  std::ofstream(top / "secret") << "x";
  std::ofstream(top / "root2/file") << "x";
  fs::create_symlink(top / "secret", root / "link");
  fs::create_symlink("sub/file", root / "inner");
  const fs::path real = fs::canonical(root);
  EXPECT_EQ(resolve_inside(real, root / "sub/file"), real / "sub/file");
  EXPECT_EQ(resolve_inside(real, root / "inner"), real / "sub/file");
  EXPECT_EQ(resolve_inside(real, root / "sub/../sub/file"), real / "sub/file");
  EXPECT_FALSE(resolve_inside(real, root / "../secret"));
  EXPECT_FALSE(resolve_inside(real, root / "link"));
  EXPECT_FALSE(resolve_inside(real, top / "root2/file"));  // a prefix of the text, not of the path
  EXPECT_FALSE(resolve_inside(real, root / "missing"));
}

TEST(Gzip, RoundTripAndLimits) {
  std::string text;
  for (int i = 0; i < 50000; ++i) text += std::to_string(i * 7919 % 1000);
  const std::string packed = gzip(text, 6);
  EXPECT_EQ(packed, gzip(text, 6));
  EXPECT_EQ(gunzip(packed, text.size()), text);
  EXPECT_THROW(gunzip(packed, text.size() - 1), DataError);
  EXPECT_THROW(gunzip(packed.substr(0, packed.size() / 2), 1 << 20), DataError);
  EXPECT_THROW(gunzip("no gzip", 1 << 20), DataError);
  EXPECT_EQ(gunzip(gzip("", 1), 0), "");
}

}  // namespace
}  // namespace triptych::insight

#include "base/json.h"

#include <gmock/gmock.h>

#include <limits>

#include "base/error.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

TEST(Json, ReadsEveryKindAndKeepsTheOrder) {
  const std::string text =
      R"({"z":[1,-2,2.5,1e300,true,null,"\u00e9"],"a":{"b":{}},"big":18446744073709551615})";
  EXPECT_EQ(dump_json(parse_json(text, "t")),
            R"({"z":[1,-2,2.5,1e+300,true,null,"é"],"a":{"b":{}},"big":18446744073709551615})");
}

struct Bad {
  std::string text, message;
};
class BadJson : public testing::TestWithParam<Bad> {};

TEST_P(BadJson, IsRefusedWithItsPlace) {
  EXPECT_THAT([&] { parse_json(GetParam().text, "file.json", {.bytes = 100, .depth = 4}); },
              ThrowsMessage<DataError>(StartsWith(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadJson,
    testing::Values(
        Bad{"", "file.json:1:1: is not JSON: syntax error while parsing value - unexpected end"},
        Bad{"{\"a\":1,\n \"a\":2}", "file.json:2:4: key 'a' occurs twice in one object"},
        Bad{"[1,\n2,]", "file.json:2:3: is not JSON: "},
        Bad{"[1] x", "file.json:1:5: is not JSON: "},
        Bad{"[[[[[1]]]]]", "file.json:1:5: more than 4 arrays and objects inside one another"},
        Bad{"\"\xff\"",
            "file.json:1:2: is not JSON: syntax error while parsing value - invalid string: "
            "ill-formed UTF-8 byte; last read: '\"\\xff'"},
        Bad{"\"\xed\xa0\x80\"", "file.json:1:3: is not JSON: "},
        Bad{"1e999", "file.json:1:5: is not JSON: number overflow parsing '1e999'"},
        Bad{"NaN", "file.json:1:1: is not JSON"},
        Bad{std::string(101, ' '), "file.json: has 101 bytes of JSON, at most 100 are read"}));

TEST(Json, DuplicateIsFoundInBigObjects) {
  std::string text = "{";
  for (int i = 0; i < 1000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_EQ(parse_json(text + "\"last\":0}", "t").size(), 1001u);
  EXPECT_THAT([&] { parse_json(text + "\"k7\":0}", "t"); },
              ThrowsMessage<DataError>(HasSubstr("key 'k7' occurs twice")));
}

TEST(Json, SameKeyInDifferentObjectsIsFine) {
  EXPECT_EQ(parse_json(R"({"a":{"a":1},"b":[{"a":1},{"a":2}]})", "t")["b"][1]["a"], 2);
}

TEST(Json, NumbersComeBackBitByBit) {
  for (const double x : {0.1, 1.0 / 3, 2.2250738585072014e-308, 123456789.123456789}) {
    EXPECT_EQ(parse_json(dump_json(Json(x)), "t").get<double>(), x);
  }
  EXPECT_EQ(dump_json(Json(std::numeric_limits<double>::quiet_NaN())), "null");
}

TEST(Json, MissingMemberIsNamed) {
  const Json object = parse_json(R"({"a":1})", "t");
  EXPECT_EQ(json_member(object, "a", "t"), 1);
  EXPECT_THAT([&] { json_member(object, "b", "config.json"); },
              ThrowsMessage<DataError>("config.json: 'b' is missing"));
  EXPECT_THAT([&] { json_member(object["a"], "b", "config.json"); },
              ThrowsMessage<DataError>(HasSubstr("is number, an object with 'b' is expected")));
}

}  // namespace
}  // namespace triptych

#include "base/options.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "base/files.h"
#include "base/json.h"
#include "base/option_docs.h"
#include "base/option_io.h"
#include "base/option_toml.h"

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

enum class Mode { kSlow, kFast };
constexpr std::array<std::string_view, 2> option_names(Mode) { return {"slow", "fast"}; }

struct Inner {
  int64_t count = 3;
  std::optional<int64_t> limit;
  static constexpr auto fields() {
    using O = Inner;
    return std::tuple(field("count", &O::count, at_least(1), "How many."),
                      field("limit", &O::limit, at_least(1), "At most so many; not set: none."));
  }
};

struct Item {
  std::filesystem::path path;
  double weight = 1;
  static constexpr auto fields() {
    using O = Item;
    return std::tuple(field("path", &O::path, "A file."),
                      field("weight", &O::weight, above(0), "Its share."));
  }
};

struct Sample {
  std::string name = "x";
  Mode mode = Mode::kSlow;
  bool flag = false;
  double rate = 0.5;
  std::array<double, 2> betas = {0.9, 0.999};
  std::vector<std::string> words;
  std::variant<Mode, int64_t> either = Mode::kFast;
  std::variant<Mode, std::filesystem::path> place = Mode::kSlow;
  std::vector<std::vector<int64_t>> windows;
  Inner inner;
  std::optional<Inner> extra;
  std::vector<Item> items;
  static constexpr auto fields() {
    using O = Sample;
    return std::tuple(
        field("name", &O::name, "A name."), field("mode", &O::mode, "The mode."),
        field("flag", &O::flag, "A flag."), field("rate", &O::rate, between_below(0, 1), "A rate."),
        field("betas", &O::betas, between_below(0, 1), "Two."), field("words", &O::words, "Words."),
        field("either", &O::either, at_least(1), "Either."), field("place", &O::place, "A place."),
        field("windows", &O::windows, at_least(0), "Ranges."),
        field("inner", &O::inner, "A table."), field("extra", &O::extra, "A table that may lack."),
        field("items", &O::items, "A list."));
  }
};

struct Read {
  Sample options;
  OptionOrigins origins;
  std::vector<std::string> problems;
};

Read read(std::string_view text, const std::vector<std::string>& sets = {},
          std::vector<const char*> environment = {}) {
  Read r;
  Problems problems;
  read_options_text(r.options, text, "run.toml", "/runs/a", r.origins, problems);
  environment.push_back(nullptr);
  read_options_environment(r.options, environment.data(), "/runs/a", r.origins, problems);
  for (const auto& s : sets) {
    read_option_assignment(r.options, s, "--set", "/runs/a", r.origins, problems);
  }
  r.problems = problems.messages();
  return r;
}

TEST(Options, ReadsEveryKindOfMember) {
  const Read r = read(R"(
name = "n"
mode = "fast"
flag = true
rate = 0
betas = [0.8, 0.95]
words = ["a", "b"]
either = 7
place = "x/../y"
windows = [[1, 2], [5, 9]]
[inner]
count = 9
limit = 4
[extra]
[[items]]
path = "p.jsonl"
[[items]]
path = "/abs/q.jsonl"
weight = 2
)");
  EXPECT_THAT(r.problems, IsEmpty());
  const Sample& o = r.options;
  EXPECT_EQ(o.name, "n");
  EXPECT_EQ(o.mode, Mode::kFast);
  EXPECT_TRUE(o.flag);
  EXPECT_EQ(o.rate, 0);
  EXPECT_THAT(o.betas, ElementsAre(0.8, 0.95));
  EXPECT_THAT(o.words, ElementsAre("a", "b"));
  EXPECT_EQ(std::get<int64_t>(o.either), 7);
  EXPECT_EQ(std::get<std::filesystem::path>(o.place), "/runs/a/y");
  EXPECT_EQ(o.windows[1][0], 5);
  EXPECT_EQ(o.inner.count, 9);
  EXPECT_EQ(o.inner.limit, 4);
  ASSERT_TRUE(o.extra);
  EXPECT_EQ(o.extra->count, 3);
  ASSERT_EQ(o.items.size(), 2u);
  EXPECT_EQ(o.items[0].path, "/runs/a/p.jsonl");
  EXPECT_EQ(o.items[1].path, "/abs/q.jsonl");
  EXPECT_EQ(o.items[1].weight, 2);
  EXPECT_EQ(r.origins.at("inner.limit"), "run.toml:13");
}

TEST(Options, OrderOfSourcesIsFileEnvironmentAssignments) {
  const Read r = read("rate = 0.1\nname = \"file\"\nflag = true\n",
                      {"name=flag", "inner.count=5", "inner.count=6"},
                      {"TRIPTYCH_RATE=0.2", "TRIPTYCH_NAME=env", "TRIPTYCH_INNER__LIMIT=8",
                       "TRIPTYCH_BACKTRACE=1", "PATH=/bin"});
  EXPECT_THAT(r.problems, IsEmpty());
  EXPECT_EQ(r.options.name, "flag");
  EXPECT_EQ(r.options.rate, 0.2);
  EXPECT_EQ(r.options.inner.count, 6);
  EXPECT_EQ(r.options.inner.limit, 8);
  EXPECT_EQ(r.origins.at("name"), "--set");
  EXPECT_EQ(r.origins.at("rate"), "TRIPTYCH_RATE");
  EXPECT_EQ(r.origins.at("flag"), "run.toml:3");
}

TEST(Options, AssignmentsTakeBareWordsListsAndTables) {
  const Read r = read("", {"name=some words", "mode=fast", "words=[\"a\"]", "either=3",
                           "place=2024", "items.0.path=p", "items.0.weight=2", "items.1.path=q",
                           "extra.limit=4", "windows=[[1,2]]"});
  EXPECT_THAT(r.problems, IsEmpty());
  EXPECT_EQ(r.options.name, "some words");
  EXPECT_EQ(r.options.mode, Mode::kFast);
  EXPECT_EQ(std::get<int64_t>(r.options.either), 3);
  EXPECT_EQ(std::get<std::filesystem::path>(r.options.place), "/runs/a/2024");
  ASSERT_EQ(r.options.items.size(), 2u);
  EXPECT_EQ(r.options.items[0].weight, 2);
  EXPECT_EQ(r.options.extra->limit, 4);
}

struct BadCase {
  std::string text, set, message;
};
class BadOptions : public testing::TestWithParam<BadCase> {};

TEST_P(BadOptions, SaysPlaceSeenAllowed) {
  const auto& [text, set, message] = GetParam();
  const Read r = read(text, set.empty() ? std::vector<std::string>{} : std::vector{set});
  EXPECT_THAT(r.problems, ElementsAre(message));
}

INSTANTIATE_TEST_SUITE_P(
    Golden, BadOptions,
    testing::Values(
        BadCase{"\n\nnmae = 1", "", "run.toml:3: nmae is not an option; nearest: name"},
        BadCase{"[inner]\ncuont = 1", "",
                "run.toml:2: inner.cuont is not an option; nearest: inner.count"},
        BadCase{"limit = 1", "", "run.toml:1: limit is not an option; nearest: inner.limit"},
        BadCase{"[inner]\nzzzzzz = 1", "",
                "run.toml:2: inner.zzzzzz is not an option; inner has count and limit"},
        BadCase{"name = 5", "", "run.toml:1: name = 5 is an integer; a string is expected"},
        BadCase{"flag = \"yes\"", "",
                "run.toml:1: flag = \"yes\" is a string; true or false is expected"},
        BadCase{"rate = 1.0", "",
                "run.toml:1: rate = 1.0 is out of range; allowed: 0 to 1 (excluded)"},
        BadCase{"rate = nan", "",
                "run.toml:1: rate = nan is out of range; allowed: 0 to 1 (excluded)"},
        BadCase{"[inner]\ncount = 0", "",
                "run.toml:2: inner.count = 0 is out of range; allowed: at least 1"},
        BadCase{"[inner]\ncount = 1e3", "",
                "run.toml:2: inner.count = 1000.0 has a fraction or an exponent; an integer is "
                "expected, e.g. 1000"},
        BadCase{"mode = \"fsat\"", "",
                "run.toml:1: mode = \"fsat\" is not a choice; allowed: slow, fast; nearest: fast"},
        BadCase{"betas = [0.5]", "",
                "run.toml:1: betas = [0.5] has 1 elements; a list of 2 numbers is expected"},
        BadCase{"betas = [0.5, 2]", "",
                "run.toml:1: betas[1] = 2 is out of range; allowed: 0 to 1 (excluded)"},
        BadCase{"words = \"a\"", "",
                "run.toml:1: words = \"a\" is a string; a list of strings is expected"},
        BadCase{
            "either = 1.5", "",
            "run.toml:1: either = 1.5 is a number; one of slow or fast or an integer is expected"},
        BadCase{"either = 0", "", "run.toml:1: either = 0 is out of range; allowed: at least 1"},
        BadCase{"inner = 5", "", "run.toml:1: inner is a table of options: write [inner]"},
        BadCase{"[items]\npath = \"x\"", "",
                "run.toml:1: items is a list of tables: write [[items]]"},
        BadCase{"name = 2026-11-24", "",
                "run.toml:1: name is a date or time; a string is expected"},
        BadCase{"", "name", "--set: 'name' is not of the form section.key=value"},
        BadCase{"", "name=", "--set: name has no value; an empty string is written '\"\"'"},
        BadCase{"", "words=a",
                "--set: words=a is not a TOML value; lists are written '[\"a\", \"b\"]'"},
        BadCase{"", "flag=maybe", "--set: flag = \"maybe\" is a string; true or false is expected"},
        BadCase{"", "inner.count=many",
                "--set: inner.count = \"many\" is a string; an integer is expected"},
        BadCase{"", "name.x=1", "--set: name is not a table, so name.x is not an option"},
        BadCase{"", "items.5.path=x",
                "--set: items.5: the tables of items are numbered from 0; there are 0"},
        BadCase{"", "inner.cnt=1", "--set: inner.cnt is not an option; nearest: inner.count"}));

TEST(Options, EveryProblemIsReportedInOrder) {
  const Read r =
      read("rate = 2\nname = 1\n[inner]\ncount = 0\n", {"x=1"}, {"TRIPTYCH_INNER__CUONT=3"});
  EXPECT_THAT(r.problems, ElementsAre(HasSubstr("run.toml:1: rate"), HasSubstr("run.toml:2: name"),
                                      HasSubstr("run.toml:4: inner.count"),
                                      HasSubstr("TRIPTYCH_INNER__CUONT: inner.cuont is not"),
                                      HasSubstr("--set: x is not an option")));
  EXPECT_EQ(r.options.rate, 0.5);  // what is wrong is not taken
}

TEST(Options, SyntaxErrorsHaveLineAndColumn) {
  EXPECT_THAT(read("name = \"a\"\nrate = = 1\n").problems,
              ElementsAre(HasSubstr("run.toml:2:8: is not TOML: ")));
  EXPECT_THAT(read("name = 1\nname = 2\n").problems, ElementsAre(HasSubstr("run.toml:2:")));
}

TEST(Options, WrittenConfigurationReadsBackTheSame) {
  const Read first = read("", {"name=\"q\\\"uo\\\\te\\n\"", "rate=1e-30", "extra.count=2",
                               "items.0.path=a b", "windows=[[1,2],[3,4]]", "place=p"});
  ASSERT_THAT(first.problems, IsEmpty());
  const std::string toml = options_toml(first.options);
  const Read second = read(toml);
  EXPECT_THAT(second.problems, IsEmpty());
  EXPECT_EQ(options_toml(second.options), toml);
  EXPECT_EQ(options_json(second.options), options_json(first.options));
  EXPECT_EQ(options_hash(second.options), options_hash(first.options));
  EXPECT_NE(options_hash(second.options), options_hash(Sample{}));
}

TEST(Options, OriginTextShowsWhatIsNotDefault) {
  const Read r = read("rate = 0.25\n", {"inner.count=3"});
  EXPECT_EQ(options_origin_text(r.options, r.origins, true),
            "rate = 0.25       # run.toml:1\ninner.count = 3   # --set\n");
  EXPECT_THAT(options_origin_text(r.options, r.origins), HasSubstr("name = \"x\""));
}

TEST(OptionDocs, TextMarkdownAndSchemaNameEverything) {
  const TableSchema& schema = schema_of<Sample>();
  EXPECT_THAT(options_text(schema), HasSubstr("  mode     slow | fast; default \"slow\"\n"
                                              "           The mode.\n"));
  EXPECT_THAT(options_text(schema), HasSubstr("\n[[items]]\n  A list. May be given several times.\n"
                                              "  path    path; default \"\"\n"));
  EXPECT_THAT(options_text(schema), HasSubstr("  limit  integer, at least 1; not set\n"));
  EXPECT_THAT(options_markdown(schema),
              HasSubstr("| `mode` | slow \\| fast | `\"slow\"` | The mode. |\n"));
  const Json json = parse_json(options_json_schema(schema, "T"), "schema");
  EXPECT_EQ(json["properties"]["inner"]["properties"]["count"]["minimum"], 1);
  EXPECT_EQ(json["properties"]["items"]["items"]["properties"]["weight"]["exclusiveMinimum"], 0);
  EXPECT_EQ(json["properties"]["mode"]["enum"][1], "fast");
  EXPECT_EQ(json["additionalProperties"], false);
}

TEST(Options, UnreadableFileIsAUsageError) {
  Sample o;
  EXPECT_THROW(read_options(o, {.file = "/nonexistent/run.toml"}), UsageError);
}

TEST(RunFileText, CharactersOutsideOfStringsAreNotToml) {
  // Of a range in which toml++ expected none: it must not run into undefined behaviour.
  EXPECT_THAT([] { parse_toml("\xef\xbb\xb7", "run.toml"); },
              ThrowsMessage<UsageError>(HasSubstr("run.toml:1:1: is not TOML")));
}

}  // namespace
}  // namespace triptych

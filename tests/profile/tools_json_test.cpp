#include "profile/tools_json.h"

#include <gmock/gmock.h>

namespace triptych {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ToolsJson read(const std::string& text) {
  return read_tools_json(parse_json(text, "tools.json"), "tools.json");
}

std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

// The file as that suite publishes it, with profiling switched on.
constexpr const char* kPublished = R"({
  "profile": {
    "enable": true, "profile_type": "static", "ranks": [0, 1, 2, 3],
    "static_param": {"level": "level1", "with_stack": false, "with_memory": false,
      "record_shapes": false, "with_cpu": true, "save_path": "./npu_profiling",
      "start_step": 10, "end_step": 11, "data_simplification": false,
      "aic_metrics_type": "PipeUtilization"},
    "dynamic_param": {"config_path": "./"}},
  "memory_profile": {"enable": false, "start_step": 0, "end_step": 2,
    "save_path": "./memory_snapshot", "dump_ranks": [0], "stacks": "all", "max_entries": null},
  "sorafeature": {"save_path": "./sora_features"}})";

TEST(ToolsJson, ThePublishedFileIsRead) {
  const auto tools = read(kPublished);
  EXPECT_THAT(tools.warnings, IsEmpty());
  EXPECT_EQ(tools.profile.mode, ProfileMode::kStatic);
  EXPECT_THAT(tools.profile.windows, ElementsAre(ElementsAre(10, 11)));
  EXPECT_THAT(tools.profile.ranks, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(tools.profile.level, 1);
  EXPECT_TRUE(tools.profile.with_cpu);
  EXPECT_TRUE(tools.profile.analyse);
  EXPECT_EQ(tools.profile.save_path, "./npu_profiling");
  EXPECT_THAT(tools.profile.memory.windows, IsEmpty());
}

TEST(ToolsJson, EveryKeyArrives) {
  const auto tools = read(R"({"profile": {"enable": true, "ranks": [-1], "static_param": {
      "level": "level2", "with_stack": true, "with_memory": true, "record_shapes": true,
      "with_cpu": false, "save_path": "p", "start_step": 3, "end_step": 7, "analyse_flag": false}},
    "memory_profile": {"enable": true, "start_step": 1, "end_step": 4, "save_path": "m",
      "dump_ranks": [2], "max_entries": 1000, "mem_info": true}})");
  const auto& p = tools.profile;
  EXPECT_THAT(p.ranks, ElementsAre(-1));
  EXPECT_EQ(p.level, 2);
  EXPECT_TRUE(p.with_stack && p.with_memory && p.record_shapes);
  EXPECT_FALSE(p.with_cpu || p.analyse);
  EXPECT_THAT(p.windows, ElementsAre(ElementsAre(3, 7)));
  EXPECT_THAT(p.memory.windows, ElementsAre(ElementsAre(1, 4)));
  EXPECT_EQ(p.memory.save_path, "m");
  EXPECT_THAT(p.memory.ranks, ElementsAre(2));
  EXPECT_EQ(p.memory.max_entries, 1000);
  EXPECT_TRUE(p.memory.print_peaks);
}

TEST(ToolsJson, DefaultsAreThoseOfThatSuite) {
  const auto tools = read(R"({"profile": {"enable": true}, "memory_profile": {"enable": true}})");
  EXPECT_THAT(tools.profile.ranks, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(tools.profile.windows, ElementsAre(ElementsAre(10, 11)));
  EXPECT_EQ(tools.profile.save_path, "./npu_profiling");
  EXPECT_THAT(tools.profile.memory.windows, ElementsAre(ElementsAre(0, 2)));
}

TEST(ToolsJson, Dynamic) {
  const auto tools = read(R"({"profile": {"enable": true, "profile_type": "dynamic",
                              "dynamic_param": {"config_path": "watched"}}})");
  EXPECT_EQ(tools.profile.mode, ProfileMode::kDynamic);
  EXPECT_EQ(tools.profile.config_path, "watched");
}

TEST(ToolsJson, WhatIsSwitchedOffIsNotLookedAt) {
  const auto tools = read(R"({"profile": {"enable": false, "profile_type": "wrong",
                              "static_param": {"level": 7}}})");
  EXPECT_EQ(tools.profile.mode, ProfileMode::kOff);
}

TEST(ToolsJson, AnEmptyWindowIsOneStepLong) {
  const auto tools =
      read(R"({"profile": {"enable": true, "static_param": {"start_step": 5, "end_step": 5}}})");
  EXPECT_THAT(tools.profile.windows, ElementsAre(ElementsAre(5, 6)));
  EXPECT_THAT(tools.warnings, ElementsAre(HasSubstr("end_step 5 is not above start_step 5")));
}

TEST(ToolsJson, UnknownKeysWarnOnce) {
  const auto tools = read(R"({"profile": {"enable": true, "static_param": {"new_key": 1}}})");
  EXPECT_THAT(tools.warnings,
              ElementsAre(HasSubstr("tools.json.profile.static_param.new_key: unknown key")));
}

TEST(ToolsJson, WrongValuesAreNamedWithTheirPath) {
  EXPECT_THAT(error_of(R"({"profile": {"enable": 1}})"),
              HasSubstr("tools.json.profile.enable: must be true or false, got 1"));
  EXPECT_THAT(error_of(R"({"profile": {"enable": true, "profile_type": "other"}})"),
              HasSubstr("tools.json.profile.profile_type: static or dynamic, got \"other\""));
  EXPECT_THAT(error_of(R"({"profile": {"enable": true, "static_param": {"level": "level9"}}})"),
              HasSubstr("tools.json.profile.static_param.level: level0, level1 or level2"));
  EXPECT_THAT(
      error_of(R"({"profile": {"enable": true, "static_param": {"aic_metrics_type": "x"}}})"),
      HasSubstr("aic_metrics_type: PipeUtilization or ArithmeticUtilization"));
  EXPECT_THAT(error_of(R"({"profile": {"enable": true, "ranks": "all"}})"),
              HasSubstr("tools.json.profile.ranks: must be a list of ranks"));
  EXPECT_THAT(error_of(R"({"profile": {"enable": true, "static_param": {"start_step": -1}}})"),
              HasSubstr("start_step: must be a whole number from 0 on, got -1"));
  EXPECT_THAT(error_of(R"({"profile": []})"), HasSubstr("tools.json.profile: must be an object"));
}

}  // namespace
}  // namespace triptych

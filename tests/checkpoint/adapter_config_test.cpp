#include "checkpoint/adapter_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr char kQ[] = "model.language_model.layers.11.self_attn.q_proj";
constexpr char kUp[] = "model.visual.blocks.3.mlp.up_proj";

struct Target {
  ModulePattern pattern;
  const char* module;
  bool matches;
};

TEST(AdapterConfig, MatchesModulesAsPeft) {
  using List = std::vector<std::string>;
  const Target targets[] = {
      {List{"q_proj"}, kQ, true},
      {List{"k_proj", "self_attn.q_proj"}, kQ, true},
      {List{kQ}, kQ, true},
      {List{"proj"}, kQ, false},  // a suffix begins after a dot
      {List{"_proj"}, kQ, false},
      {List{"self_attn"}, kQ, false},
      {List{""}, kQ, false},
      {List{}, kQ, false},
      {List{"up_proj"}, kUp, true},
      {List{"model.visual.blocks.3.mlp.up_proj.x"}, kUp, false},
      {"q_proj", kQ, false},  // a string matches the whole path
      {".*q_proj", kQ, true},
      {".*\\.q", kQ, false},
      {".*language_model.*\\.(q_proj|k_proj)", kQ, true},
      {".*language_model.*\\.(up_proj)", kUp, false},
      {"(?!.*visual).*up_proj", kUp, false},
      {"q_proj|.*up_proj", kUp, true},
      {"", kQ, false},
  };
  for (const auto& [pattern, module, matches] : targets) {
    EXPECT_EQ(matches_module(pattern, module), matches) << module;
  }
}

TEST(AdapterConfig, NamesAWrongPatternAndStopsAnEndlessOne) {
  EXPECT_THAT([] { matches_module("(q_proj", kQ); },
              ThrowsMessage<DataError>(HasSubstr("the pattern \"(q_proj\" is wrong at character")));
  EXPECT_THAT([] { matches_module("((a+)+)+[bc]", std::string(60, 'a')); },
              ThrowsMessage<DataError>(HasSubstr("cannot be matched")));
}

TEST(AdapterConfig, LayersExclusionsAndSavedModulesNarrowTheTargets) {
  const AdapterConfig all{.targets = std::vector<std::string>{"q_proj", "up_proj"}};
  struct Row {
    std::function<void(AdapterConfig&)> change;
    bool q, up;
  };
  const Row rows[] = {
      {[](auto&) {}, true, true},
      {[](auto& c) { c.excluded = ".*visual.*"; }, true, false},
      {[](auto& c) { c.excluded = std::vector<std::string>{"q_proj"}; }, false, true},
      {[](auto& c) { c.layers_to_transform = {11}; }, true, false},
      {[](auto& c) { c.layers_to_transform = {3, 11}; }, true, true},
      {[](auto& c) { c.layers_to_transform = {3, 11}, c.layers_pattern = {"blocks"}; }, false,
       true},
      {[](auto& c) { c.layers_to_transform = {11}, c.targets = ".*(q|up)_proj"; }, true, true},
      {[](auto& c) { c.modules_to_save = {"visual"}; }, true, false},
      {[](auto& c) { c.modules_to_save = {"vis"}; }, true, true},
  };
  for (const auto& row : rows) {
    AdapterConfig config = all;
    row.change(config);
    EXPECT_EQ(config.adapts(kQ), row.q) << dump_adapter_config(config);
    EXPECT_EQ(config.adapts(kUp), row.up) << dump_adapter_config(config);
  }
}

TEST(AdapterConfig, RankAndScaleFollowThePatterns) {
  const AdapterConfig config{.rank = 4,
                             .alpha = 8,
                             .rank_pattern = {{"layers.1.self_attn.q_proj", 2}, {"up_proj", 16}},
                             .alpha_pattern = {{".*visual.*", 32}}};
  EXPECT_EQ(config.rank_of(kQ), 4);  // "layers.1." is no end of "layers.11."
  EXPECT_EQ(config.rank_of("model.layers.1.self_attn.q_proj"), 2);
  EXPECT_EQ(config.rank_of(kUp), 16);
  EXPECT_EQ(config.scale_of(kQ), 2.0);
  EXPECT_EQ(config.scale_of(kUp), 2.0);
  AdapterConfig rslora = config;
  rslora.rslora = true;
  EXPECT_EQ(rslora.scale_of(kQ), 4.0);
}

TEST(AdapterConfig, ReadsWhatItWrites) {
  const AdapterConfig config{.base_model = "some/folder",
                             .rank = 3,
                             .alpha = 1.5,
                             .dropout = 0.05,
                             .targets = std::vector<std::string>{"a", "b"},
                             .excluded = ".*c",
                             .modules_to_save = {"lm_head"},
                             .layers_to_transform = {1, 2},
                             .layers_pattern = {"layers"},
                             .rank_pattern = {{"a", 2}},
                             .alpha_pattern = {{"b", 0.25}},
                             .rslora = true};
  const auto text = dump_adapter_config(config);
  EXPECT_EQ(dump_adapter_config(parse_adapter_config(text, "c.json")), text);
  const auto json = parse_json(text, "c.json");
  EXPECT_TRUE(json["megatron_config"].is_null());
  EXPECT_EQ(json["use_dora"], false);
  EXPECT_EQ(json["loftq_config"], Json::object());
}

TEST(AdapterConfig, RefusesWhatWouldChangeTheNumbers) {
  const std::pair<const char*, const char*> rows[] = {
      {R"("use_dora": true)", "'use_dora' is true, which is not supported"},
      {R"("bias": "all")", "'bias' is \"all\""},
      {R"("peft_type": "IA3")", "'peft_type' is \"IA3\""},
      {R"("layer_replication": [[0, 2]])", "'layer_replication' is [[0,2]]"},
      {R"("init_lora_weights": "pissa_niter_4")", "\"pissa_niter_4\", which changes the base"},
      {R"("fan_in_fan_out": true)", "'fan_in_fan_out' is true"},
      {R"("r": 0)", "'r' is 0, at least 1"},
      {R"("r": "8")", "'r' holds \"8\""},
      {R"("rank_pattern": {"a": 0})", "the rank 0"},
      {R"("target_modules": [1])", "'target_modules' holds 1"},
      {R"("target_modules": null)", "'target_modules' is missing"},
  };
  for (const auto& [member, message] : rows) {
    const std::string rest = std::string(member).find("target_modules") == std::string::npos
                                 ? R"(, "target_modules": "x")"
                                 : "";
    EXPECT_THAT([&] { parse_adapter_config("{" + std::string(member) + rest + "}", "c.json"); },
                ThrowsMessage<DataError>(HasSubstr(message)));
  }
  EXPECT_THAT([] { parse_adapter_config("[]", "c.json"); },
              ThrowsMessage<DataError>(HasSubstr("c.json")));
}

}  // namespace
}  // namespace triptych

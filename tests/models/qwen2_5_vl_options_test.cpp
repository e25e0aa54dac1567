#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/qwen2_5_vl/options.h"

namespace triptych::qwen2_5_vl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

TEST(Config, FlatLayoutReadsBack) {
  for (const auto& name : preset_names()) {
    EXPECT_THAT(differences(parse_config(make_config(preset(name)), "config.json"), preset(name)),
                IsEmpty())
        << name;
  }
}

TEST(Config, DifferencesAreWrittenAsInTheFile) {
  Options other = preset("qwen2_5_vl_3b");
  other.text.tie_word_embeddings = false;
  other.text.rope_theta = 5e5;
  EXPECT_THAT(differences(preset("qwen2_5_vl_3b"), other),
              testing::ElementsAre("rope_theta: 1000000 against 500000",
                                   "tie_word_embeddings: true against false"));
}

TEST(Config, WholeNumbersAreWrittenAsSuch) {
  // transformers 5 declares tokens_per_second an integer and refuses 2.0.
  const Json config = make_config(preset("qwen2_5_vl_3b"));
  EXPECT_EQ(config["vision_config"]["tokens_per_second"].dump(), "2");
}

TEST(Config, NestedLayoutOfNewerReleases) {
  const auto flat = make_config(preset("qwen2_5_vl_3b"));
  Json text = flat;
  for (const char* key :
       {"vision_config", "model_type", "rope_theta", "rope_scaling", "image_token_id"})
    text.erase(key);
  text["rope_parameters"] = {
      {"rope_type", "default"}, {"rope_theta", 1e6}, {"mrope_section", {16, 24, 24}}};
  const Json nested = {{"model_type", "qwen2_5_vl"},
                       {"text_config", text},
                       {"vision_config", flat["vision_config"]},
                       {"image_token_id", 7}};
  const auto options = parse_config(nested, "config.json");
  EXPECT_THAT(differences(options, preset("qwen2_5_vl_3b")), IsEmpty());
  EXPECT_EQ(options.ids.image, 7);
}

struct Bad {
  const char* what;
  void (*change)(Json&);
  const char* message;
};
class ConfigErrors : public testing::TestWithParam<Bad> {};

TEST_P(ConfigErrors, AreNamed) {
  auto config = make_config(preset("qwen2_5_vl_7b"));
  GetParam().change(config);
  EXPECT_THAT([&] { parse_config(config, "config.json"); },
              ThrowsMessage<Error>(HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ConfigErrors,
    testing::Values(
        Bad{"model", [](Json& c) { c["model_type"] = "llama"; },
            "model_type is \"llama\", expected \"qwen2_5_vl\""},
        // The class default (1e-5) differs from every published model: never filled in silently.
        Bad{"eps", [](Json& c) { c.erase("rms_norm_eps"); }, "rms_norm_eps is missing"},
        Bad{"vision hidden", [](Json& c) { c["vision_config"].erase("hidden_size"); },
            "vision_config: hidden_size is missing"},
        Bad{"type", [](Json& c) { c["hidden_size"] = "big"; },
            "hidden_size = \"big\" must be a whole number"},
        Bad{"zero", [](Json& c) { c["num_hidden_layers"] = 0; },
            "num_hidden_layers must be from 1 to 1024, got 0"},
        // A list of so many layers would never end.
        Bad{"layers", [](Json& c) { c["num_hidden_layers"] = 100000000; },
            "num_hidden_layers must be from 1 to 1024, got 100000000"},
        Bad{"large", [](Json& c) { c["vocab_size"] = int64_t{1} << 32; },
            "vocab_size = 4294967296 must be a whole number from 0 to 268435456"},
        Bad{"heads", [](Json& c) { c["num_attention_heads"] = 27; },
            "must be a multiple of num_attention_heads 27"},
        Bad{"sections", [](Json& c) { c["rope_scaling"]["mrope_section"] = {16, 24}; },
            "mrope sections add up to 40"},
        Bad{"out", [](Json& c) { c["vision_config"]["out_hidden_size"] = 1; },
            "out_hidden_size 1 differs"},
        Bad{"rope", [](Json& c) { c["rope_scaling"]["type"] = "yarn"; },
            "\"yarn\" is not supported"}));

TEST(Preset, UnknownNamesTheKnown) {
  EXPECT_THAT([] { preset("qwen2_5_vl_5b"); },
              ThrowsMessage<UsageError>(HasSubstr("qwen2_5_vl_3b, qwen2_5_vl_7b")));
}

}  // namespace
}  // namespace triptych::qwen2_5_vl

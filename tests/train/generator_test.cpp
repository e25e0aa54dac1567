#include "train/generator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "models/qwen2_5_vl/fields.h"
#include "tiny_config.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

TEST(ChooseToken, GreedyTakesTheLargest) {
  EXPECT_EQ(choose_token(at::tensor({0.1F, 3.0F, 2.9F}), {}, {}, 0), 1);
}

TEST(ChooseToken, PenaltyWorksOnBothSigns) {
  const std::vector<int32_t> seen{1, 1};
  EXPECT_EQ(choose_token(at::tensor({2.0F, 3.0F}), {.repetition_penalty = 2}, seen, 0),
            0);  // 3 / 2 < 2
  EXPECT_EQ(choose_token(at::tensor({-1.5F, -1.0F}), {.repetition_penalty = 2}, seen, 0),
            0);  // -1 * 2 < -1.5
}

TEST(ChooseToken, DrawsInProportion) {
  const auto logits = at::tensor({0.5F, 0.3F, 0.2F}).log();
  std::map<int32_t, int> count;
  for (int i = 0; i < 1000; ++i)
    ++count[choose_token(logits, {.temperature = 1}, {}, (i + 0.5) / 1000)];
  EXPECT_NEAR(count[0], 500, 2);
  EXPECT_NEAR(count[1], 300, 2);
  EXPECT_NEAR(count[2], 200, 2);
}

TEST(ChooseToken, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto logits = at::tensor({0.5F, 0.3F, 0.2F}).log();
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(choose_token(logits, {.temperature = 1, .top_p = 0.4}, {}, i / 100.0), 0);
    EXPECT_NE(choose_token(logits, {.temperature = 1, .top_p = 0.7}, {}, i / 100.0), 2);
  }
}

TEST(ChooseToken, RefusesWhatIsNoNumber) {
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  const auto infinity = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    for (const auto& logits : {at::tensor({0.1F, nan, 3.0F}), at::tensor({infinity, 1.0F})}) {
      EXPECT_THROW(choose_token(logits, {.temperature = temperature}, {}, 0.5), NonfiniteOutput);
    }
    EXPECT_EQ(choose_token(at::tensor({-infinity, 1.0F}), {.temperature = temperature}, {}, 0.5),
              1);
  }
}

TEST(ChooseToken, ColdIsNearlyGreedy) {
  EXPECT_EQ(choose_token(at::tensor({1.0F, 1.5F, 0.0F}), {.temperature = 1e-6}, {}, 0.999), 1);
}

// A model that is not trained yet may say what stands for a picture; there is none.
TEST(Generate, APlaceholderIsAWordWhenTheModelSaysIt) {
  const auto family = make_family(tiny_config(), "config.json", "", "max_hw");
  const auto model = family->build(at::kFloat);
  initialise(model.parameters, 1, at::kCPU);
  const at::NoGradGuard no_grad;
  auto state = family->start_decoding(8, {});
  auto flow = family->prefill_flow({.tokens = {1, 2, 3}}, state, {});
  run_layers(model, flow);
  state.length = 3;
  flow = family->decode_flow(60, state, {});
  EXPECT_EQ(flow.at(qwen2_5_vl::field::kPlainIds).item<int64_t>(), 60);
  run_layers(model, flow);
  const auto logits = flow.at(family->logits_field());
  EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{1, 64}));
  EXPECT_TRUE(logits.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace triptych

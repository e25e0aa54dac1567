// Recomputation must not change one bit of loss or gradients, with every part trained and with the
// first trained layer above frozen ones.

#include "parallel/recompute.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "models/qwen2_5_vl/fields.h"
#include "models/qwen2_5_vl/model.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

namespace qwen = qwen2_5_vl;

Json tiny_config() {
  auto options = qwen::preset("qwen2_5_vl_3b");
  options.vision.depth = 2;
  options.vision.hidden_size = options.vision.out_hidden_size = 32;
  options.vision.intermediate_size = 44;
  options.vision.num_heads = 2;
  options.vision.fullatt_block_indexes = {1};
  options.text.vocab_size = 64;
  options.text.hidden_size = 32;
  options.text.intermediate_size = 48;
  options.text.num_hidden_layers = 2;
  options.text.num_attention_heads = 4;
  options.text.num_key_value_heads = 2;
  options.text.mrope_section = {1, 1, 2};
  options.text.initializer_range = 0.1;
  options.ids.image = 60;
  options.ids.video = 61;
  options.ids.vision_start = 62;
  options.ids.vision_end = 63;
  return qwen::make_config(options);
}

MicroBatch small_batch() {
  Sample picture{.index = 3, .tokens = {1, 62, 60, 60, 60, 60, 60, 60, 63, 5, 6, 7}};
  picture.labels.assign(9, kIgnoreLabel);
  picture.labels.insert(picture.labels.end(), {5, 6, 7});
  picture.media.push_back({.grid = {1, 4, 6}, .rows = std::vector<float>(24 * 1176)});
  for (size_t i = 0; i < picture.media[0].rows.size(); ++i)
    picture.media[0].rows[i] = static_cast<float>(i % 17) / 8 - 1;
  const Sample text{.index = 4, .tokens = {2, 8, 9}, .labels = {kIgnoreLabel, 8, 9}};
  return {.rows = {{{picture, text}}}};
}

struct Result {
  double loss;
  std::vector<at::Tensor> gradients;
};

Result run(bool recompute, bool freeze, bool lora) {
  const auto family = make_family(tiny_config(), "config.json", "", "max_hw");
  auto model = family->build(at::kFloat);
  if (freeze) {
    for (const auto& p : model.parameters)
      p->trained = p->part == "text" && p->name != "model.embed_tokens.weight";
  }
  if (lora) {
    for (const auto& p : model.parameters) p->trained = false;
    for (auto* linear : model.linears) {
      if (linear->part() == "text")
        add_lora(model, *linear, {.rank = 2, .scale = 2, .dropout = 0.5});
    }
  }
  initialise(model.parameters, 1, at::kCPU);
  if (lora) {
    for (const auto& p : model.parameters) {
      if (p->name.ends_with("lora_B.weight")) p->value.detach().fill_(0.1);
    }
  }
  auto flow = family->make_flow(small_batch(), std::vector<double>{0.2, 0.2},
                                {.dropout = lora, .seed = 9, .step = 4});
  run_layers(model, flow, recompute ? RecomputePlan::full(*family, model, -1) : RecomputePlan());
  const auto& loss = flow.at(family->loss_field());
  loss.backward();
  Result result{.loss = loss.item<double>(), .gradients = {}};
  for (const auto& p : model.parameters) {
    if (!p->trained) continue;
    EXPECT_TRUE(p->value.grad().defined()) << p->name;
    result.gradients.push_back(p->value.grad().to_dense().clone());
  }
  return result;
}

class Recompute : public testing::TestWithParam<std::pair<bool, bool>> {};

TEST_P(Recompute, ChangesNoBit) {
  const auto [freeze, lora] = GetParam();
  const auto plain = run(false, freeze, lora), again = run(true, freeze, lora);
  EXPECT_EQ(plain.loss, again.loss);
  ASSERT_EQ(plain.gradients.size(), again.gradients.size());
  ASSERT_FALSE(plain.gradients.empty());
  for (size_t i = 0; i < plain.gradients.size(); ++i)
    EXPECT_TRUE(plain.gradients[i].equal(again.gradients[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(Cases, Recompute,
                         testing::Values(std::pair(false, false), std::pair(true, false),
                                         std::pair(false, true)));

// The dropout mask belongs to the token: it may not depend on what else is in the batch.
TEST(Flow, DropoutKeysBelongToTheSample) {
  const auto family = make_family(tiny_config(), "config.json", "", "max_hw");
  auto both = small_batch();
  const FlowRequest request{.dropout = true, .seed = 9, .step = 4};
  const auto joined = family->make_flow(both, {}, request).at(qwen::field::kDropoutKeys);
  MicroBatch alone{.rows = {{{both.rows[0].samples[1]}}}};
  EXPECT_TRUE(family->make_flow(alone, {}, request)
                  .at(qwen::field::kDropoutKeys)
                  .equal(joined.slice(0, 12)));
}

}  // namespace
}  // namespace triptych

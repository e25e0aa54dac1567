// Recomputation must not change one bit of loss or gradients, with every part trained and with the
// first trained layer above frozen ones.

#include "parallel/recompute.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "models/qwen2_5_vl/fields.h"
#include "parallel/activation_offload.h"
#include "tiny_config.h"
#include "train/recompute_plan.h"
#include "train/run_layers.h"

namespace triptych {
namespace {

namespace qwen = qwen2_5_vl;

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

struct Setting {
  bool freeze = false, lora = false;
  at::ScalarType dtype = at::kFloat;
};

/// @param counts  of what was offloaded, if it is wanted
Result run(const RecomputeOptions& recompute, const Setting& setting,
           OffloadCounts* counts = nullptr) {
  const auto family = make_family(tiny_config(), "config.json", "", "max_hw");
  auto model = family->build(setting.dtype);
  if (setting.freeze) {
    for (const auto& p : model.parameters)
      p->trained = p->part == "text" && p->name != "model.embed_tokens.weight";
  }
  if (setting.lora) {
    for (const auto& p : model.parameters) p->trained = false;
    for (auto* linear : model.linears) {
      if (linear->part() != "projector")
        add_lora(model, *linear, {.rank = 2, .scale = 2, .dropout = 0.5});
    }
  }
  initialise(model.parameters, 1, at::kCPU);
  if (setting.lora) {
    for (const auto& p : model.parameters) {
      if (p->name.ends_with("lora_B.weight")) p->value.detach().fill_(0.1);
    }
  }
  const auto cut = StageCut::whole(static_cast<int64_t>(model.layers.size()));
  Problems problems;
  check_recompute(recompute, *family, model, cut, problems);
  problems.throw_if_any();
  const auto plan = make_recompute_plan(recompute, *family, model, cut, at::kCPU);
  auto flow =
      family->make_flow(small_batch(), std::vector<double>{0.2, 0.2},
                        {.dtype = setting.dtype, .dropout = setting.lora, .seed = 9, .step = 4});
  run_layers(model, flow, plan);
  const auto loss = flow.at(family->loss_field());
  flow = {};
  loss.backward();
  Result result{.loss = loss.item<double>(), .gradients = {}};
  for (const auto& p : model.parameters) {
    if (!p->trained) continue;
    EXPECT_TRUE(p->value.grad().defined()) << p->name;
    result.gradients.push_back(p->value.grad().to_dense().clone());
  }
  if (counts != nullptr && plan.offload() != nullptr) *counts = plan.offload()->counts();
  return result;
}

RecomputeOptions selective(std::vector<std::string> modules) {
  return {.policy = RecomputePolicy::kSelective, .modules = std::move(modules)};
}
RecomputeOptions full(int64_t layers, RecomputeMethod method = RecomputeMethod::kBlock) {
  return {.policy = RecomputePolicy::kFull, .layers = layers, .method = method};
}
RecomputeOptions keeping_attention(RecomputeOptions options) {
  options.keep_attention = true;
  return options;
}
RecomputeOptions offloaded(RecomputeOptions options) {
  options.offload = true;
  options.offload_min_bytes = 1;
  return options;
}
const std::vector<std::string> kResults = {"norm", "qkv_rope", "mlp_act"};

struct Case {
  const char* name;
  RecomputeOptions options;
};
const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"Full", full(-1)},
      {"FirstBlock", full(1)},
      {"GroupsOfOne", full(1, RecomputeMethod::kUniform)},
      {"OneGroup", full(-1, RecomputeMethod::kUniform)},
      {"FullKeepingAttention", keeping_attention(full(-1))},
      {"OneGroupKeepingAttention", keeping_attention(full(-1, RecomputeMethod::kUniform))},
      {"Norm", selective({"norm"})},
      {"QkvRope", selective({"qkv_rope"})},
      {"MlpAct", selective({"mlp_act"})},
      {"AllResults", selective(kResults)},
      {"Attention", selective({"attention"})},
      {"Mlp", selective({"mlp"})},
      {"MlpAndNorm", selective({"mlp", "norm"})},
      {"Everything", selective({"norm", "qkv_rope", "mlp_act", "attention", "mlp"})},
      {"ChosenLayers", selective({"model.layers.1", "visual.blocks.*", "mlp_act"})},
      {"Offload", offloaded({})},
      {"OffloadFull", offloaded(full(-1))},
      {"OffloadFullKeepingAttention", offloaded(keeping_attention(full(-1)))},
      {"OffloadAllResults", offloaded(selective(kResults))},
      {"OffloadAttention", offloaded(selective({"attention"}))},
  };
  return all;
}

class Recompute : public testing::TestWithParam<Case> {};

TEST_P(Recompute, ChangesNoBit) {
  for (const auto& setting : {Setting{}, Setting{.freeze = true}, Setting{.lora = true},
                              Setting{.dtype = at::kBFloat16}}) {
    SCOPED_TRACE(testing::Message() << "freeze " << setting.freeze << ", lora " << setting.lora
                                    << ", " << setting.dtype);
    const auto plain = run({}, setting), again = run(GetParam().options, setting);
    EXPECT_EQ(plain.loss, again.loss);
    ASSERT_EQ(plain.gradients.size(), again.gradients.size());
    ASSERT_FALSE(plain.gradients.empty());
    for (size_t i = 0; i < plain.gradients.size(); ++i)
      EXPECT_TRUE(plain.gradients[i].equal(again.gradients[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Recompute, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST(RecomputeOffload, LeavesNothingOnTheHostAndFetchesAhead) {
  OffloadCounts counts;
  run(offloaded({}), {}, &counts);
  EXPECT_GT(counts.copies, 20);
  EXPECT_EQ(counts.bytes_held, 0);
  // all but the last layer of each part's first pass is on its way before backward comes to it
  EXPECT_GT(counts.fetched_ahead, counts.fetches / 2);
  EXPECT_LE(counts.fetches, counts.copies);
  OffloadCounts inputs;
  run(offloaded(full(-1)), {}, &inputs);
  EXPECT_EQ(inputs.copies, 4);  // the input of each block
}

std::string problems_of(const RecomputeOptions& options, int64_t stages = 1) {
  const auto family = make_family(tiny_config(), "config.json", "", "max_hw");
  const auto model = family->build(at::kFloat);
  auto cut = StageCut::whole(static_cast<int64_t>(model.layers.size()));
  cut.stages = stages;
  Problems problems;
  check_recompute(options, *family, model, cut, problems);
  std::string text;
  for (const auto& message : problems.messages()) text += message + "\n";
  return text;
}

TEST(RecomputeErrors, NameTheOptionAndWhatIsAllowed) {
  using testing::HasSubstr;
  EXPECT_THAT(problems_of(selective({"mpl"})),
              HasSubstr("recompute.modules: no layer is called or has a piece called \"mpl\"; "
                        "pieces: attention, mlp, mlp_act, norm, qkv_rope; layers by globs"));
  EXPECT_THAT(problems_of(full(0, RecomputeMethod::kUniform)),
              HasSubstr("recompute.layers = 0: groups"));
  EXPECT_THAT(problems_of(full(0)), HasSubstr("recompute.layers = 0 recomputes no layer"));
  EXPECT_THAT(problems_of(keeping_attention(selective({"norm"}))),
              HasSubstr("recompute.keep_attention = true needs policy = \"full\""));
  auto listed = full(0);
  listed.layers = std::vector<int64_t>{1, 2};
  EXPECT_THAT(problems_of(listed), HasSubstr("recompute.layers has 2 numbers"));
  listed.layers = std::vector<int64_t>{3};
  EXPECT_THAT(problems_of(listed), HasSubstr("recompute.layers 3 exceeds the 2 layers of stage 0"));
  EXPECT_THAT(problems_of(full(3)),
              HasSubstr("recompute.layers 3 exceeds the 2 layers of stage 0"));
  EXPECT_EQ(problems_of(full(2)), "");
  auto one_part = full(2);
  one_part.text = RecomputePartOptions{.layers = 3};
  EXPECT_EQ(problems_of(one_part),
            "recompute.text.layers 3 exceeds the 2 text layers of stage 0\n");
  EXPECT_EQ(problems_of(selective({"model.layers.0", "norm"})), "");
}

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

#include "nn/modulation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/layer_norm.h"
#include "nn/model.h"

namespace triptych {
namespace {

TEST(Modulation, GivesEachSampleItsVectors) {
  ParameterBuilder builder(at::kFloat);
  const Modulation modulation(builder, "norm1.linear", "transformer", 5, 7, 3, Place::kBetween,
                              0.3);
  initialise(builder.parameters(), 1, at::kCPU);
  at::manual_seed(0);
  const auto c_BE = at::randn({2, 5});
  const auto m_3BD = modulation.forward(c_BE);
  ASSERT_EQ(m_3BD.sizes(), at::IntArrayRef({3, 2, 7}));
  const auto& linear = modulation.linear();
  const auto want_BO = at::linear(at::silu(c_BE), linear.weight->value, linear.bias->value);
  for (int64_t j = 0; j < 3; ++j)
    EXPECT_TRUE(m_3BD[j].equal(want_BO.narrow(1, 7 * j, 7))) << "vector " << j;
}

TEST(LayerNorm, IsTorchs) {
  ParameterBuilder builder(at::kFloat);
  const LayerNorm norm(builder, "norm", "transformer", 6, 1e-5);
  initialise(builder.parameters(), 1, at::kCPU);
  at::manual_seed(0);
  const auto x = 3 * at::randn({4, 6}) + 2;
  const auto centred = x - x.mean(1, true);
  const auto want = centred / (centred.square().mean(1, true) + 1e-5).sqrt();
  EXPECT_LE((norm.forward(x) - want).abs().max().item<float>(), 2e-6);  // a few roundings of fp32
}

}  // namespace
}  // namespace triptych

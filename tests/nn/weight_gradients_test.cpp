// A weight gradient that was put off must have the bits of one that was not.

#include "parallel/weight_gradients.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/linear.h"
#include "parallel/gradient_hook.h"

namespace triptych {
namespace {

struct Case {
  std::vector<int64_t> x, weight;
  bool bias, x_needs_gradient;
  at::ScalarType dtype;
};

struct Result {
  at::Tensor y, dx, dweight, dbias;
  int hooks = 0;
};

enum class How { kPlain, kAtOnce, kPutOff, kForExchange };

Result run(const Case& c, How how) {
  at::manual_seed(3);
  const auto x = at::randn(c.x).to(c.dtype).set_requires_grad(c.x_needs_gradient);
  Parameter weight{.name = "w", .value = at::randn(c.weight).to(c.dtype).set_requires_grad(true)};
  const auto bias =
      c.bias ? at::randn({c.weight[0]}).to(c.dtype).set_requires_grad(true) : at::Tensor();
  Result result;
  set_gradient_hook(weight.value, [&] {
    if (weight.value.grad().defined()) ++result.hooks;
  });
  WeightGradients::Work work;
  if (how != How::kPlain) weight.weight_gradients = std::make_shared<WeightGradients>();
  for (int pass = 0; pass < 2; ++pass) {  // the second is added to the first
    result.y = linear(x, weight, bias);
    const auto dy = at::randn(result.y.sizes()).to(c.dtype);
    if (how == How::kPutOff) weight.weight_gradients->collect_into(&work);
    if (how == How::kForExchange) weight.weight_gradients->keep_for_exchanges(4);
    result.y.backward(dy);
    if (how == How::kForExchange) {
      EXPECT_EQ(result.hooks, 2 * pass);
      EXPECT_EQ(weight.weight_gradients->waiting(), 1U);
      weight.weight_gradients->run_waiting();
      EXPECT_EQ(weight.weight_gradients->waiting(), 0U);
    }
    if (how == How::kPutOff) {
      // Nothing has come before the work is done; autograd calls the hook of a leaf without a
      // gradient too, and the one of the first pass is still there.
      EXPECT_EQ(result.hooks, 2 * pass);
      EXPECT_EQ(work.size(), 1U);
      weight.weight_gradients->collect_into(nullptr);
      for (const auto& product : work) product();
      work.clear();
    }
  }
  result.dx = x.grad();
  result.dweight = weight.value.grad();
  if (c.bias) result.dbias = bias.grad();
  set_gradient_hook(weight.value, {});
  return result;
}

class PutOff : public testing::TestWithParam<Case> {};

TEST_P(PutOff, ChangesNoBit) {
  const auto plain = run(GetParam(), How::kPlain);
  for (const auto how : {How::kAtOnce, How::kPutOff, How::kForExchange}) {
    const auto other = run(GetParam(), how);
    EXPECT_TRUE(plain.y.equal(other.y));
    EXPECT_TRUE(plain.dweight.equal(other.dweight));
    // The one more: the second pass calls it while the gradient of the first is still there.
    EXPECT_EQ(other.hooks, plain.hooks + (how == How::kAtOnce ? 0 : 1));
    if (plain.dx.defined()) {
      EXPECT_TRUE(plain.dx.equal(other.dx));
    }
    if (plain.dbias.defined()) {
      EXPECT_TRUE(plain.dbias.equal(other.dbias));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PutOff,
                         testing::Values(Case{{17, 24}, {40, 24}, true, true, at::kFloat},
                                         Case{{17, 24}, {40, 24}, false, true, at::kFloat},
                                         Case{{33, 50}, {7, 50}, true, true, at::kBFloat16},
                                         // patches: no gradient of the input, a weight of 5 dims
                                         Case{{9, 24}, {8, 3, 2, 2, 2}, false, false, at::kFloat},
                                         Case{{1, 5}, {3, 5}, true, true, at::kFloat}));

TEST(PutOff, NoMoreThanAskedForWaitAndTheOldestIsFirst) {
  WeightGradients gradients;
  std::vector<int> done;
  const auto put_off = [&](int number) {
    return gradients.put_off([&done, number] { done.push_back(number); });
  };
  EXPECT_FALSE(put_off(0));
  gradients.keep_for_exchanges(2);
  for (const int number : {1, 2, 3}) EXPECT_TRUE(put_off(number));
  EXPECT_EQ(done, std::vector{1});
  gradients.run_oldest();
  EXPECT_EQ(done, (std::vector{1, 2}));
  gradients.run_waiting();
  EXPECT_EQ(done, (std::vector{1, 2, 3}));
}

TEST(PutOff, TheFirstGradientIsKeptAndNotCopied) {
  const auto weight = at::ones({2, 3}).set_requires_grad(true);
  auto gradient = at::ones({2, 3});
  const void* memory = gradient.data_ptr();
  accumulate_gradient(weight, std::move(gradient));
  EXPECT_EQ(weight.grad().data_ptr(), memory);
  accumulate_gradient(weight, at::ones({2, 3}));
  EXPECT_EQ(weight.grad().data_ptr(), memory);
  EXPECT_EQ(weight.grad().sum().item<float>(), 12);
}

TEST(PutOff, AFrozenWeightCostsNothing) {
  const auto x = at::randn({4, 6}).set_requires_grad(true);
  Parameter weight{.name = "w", .value = at::randn({3, 6})};
  weight.weight_gradients = std::make_shared<WeightGradients>();
  WeightGradients::Work work;
  weight.weight_gradients->collect_into(&work);
  linear(x, weight).sum().backward();
  EXPECT_TRUE(work.empty());
  EXPECT_TRUE(x.grad().defined());
}

}  // namespace
}  // namespace triptych

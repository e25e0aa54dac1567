#include "kernels/adamw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu_allocator.h"

namespace triptych {
namespace {

/// torch.optim.AdamW in fp64, one element after another.
struct Plain {
  at::Tensor w, m, v;
  void step(const at::Tensor& grad, const AdamWStep& s, double decay) {
    const auto g = grad.to(at::kDouble) * s.grad_scale;
    w = w * (1 - s.learning_rate * decay);
    m = m * s.beta1 + g * (1 - s.beta1);
    v = v * s.beta2 + g * g * (1 - s.beta2);
    const auto denominator = v.sqrt() / std::sqrt(1 - std::pow(s.beta2, s.step)) + s.eps;
    w = w - s.learning_rate / (1 - std::pow(s.beta1, s.step)) * m / denominator;
  }
};

TEST(AdamW, Fp32EqualsTheFormula) {
  at::manual_seed(0);
  for (const int64_t n : {1, 15, 16, 17, 70000}) {
    const auto weight = at::randn({n}), m = at::zeros({n}), v = at::zeros({n});
    Plain plain{weight.to(at::kDouble), m.to(at::kDouble), v.to(at::kDouble)};
    for (int64_t step = 1; step <= 3; ++step) {
      const auto grad = at::randn({n});
      const AdamWStep s{.step = step, .learning_rate = 1e-2, .grad_scale = 0.5};
      const AdamWTensor tensor{
          .weight = weight, .grad = grad, .exp_avg = m, .exp_avg_sq = v, .weight_decay = 0.1};
      adamw(std::span(&tensor, 1), s);
      plain.step(grad, s, 0.1);
    }
    EXPECT_LE((weight.to(at::kDouble) - plain.w).abs().max().item<double>(), 1e-6) << n;
  }
}

TEST(AdamW, SplitMasterIsTheFp32Master) {
  at::manual_seed(0);
  const int64_t n = 1000;
  const auto start = at::randn({n});
  const auto [weight, low] = split_master(start);
  const auto master = start.clone(), m1 = at::zeros({n}), v1 = at::zeros({n}), m2 = at::zeros({n}),
             v2 = at::zeros({n});
  for (int64_t step = 1; step <= 5; ++step) {
    const auto grad = at::randn({n}).to(at::kBFloat16);
    const AdamWTensor split{.weight = weight,
                            .grad = grad,
                            .exp_avg = m1,
                            .exp_avg_sq = v1,
                            .low = low,
                            .weight_decay = 0.01};
    const AdamWTensor whole{
        .weight = master, .grad = grad, .exp_avg = m2, .exp_avg_sq = v2, .weight_decay = 0.01};
    adamw(std::span(&split, 1), {.step = step});
    adamw(std::span(&whole, 1), {.step = step});
  }
  EXPECT_TRUE(join_master(weight, low).equal(master));  // bit for bit
}

TEST(SplitMaster, GivesEveryPatternBack) {
  std::vector<int32_t> bits;
  for (uint32_t upper = 0; upper < 0x10000; upper += 7) {
    for (const uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint32_t pattern = upper << 16 | lower;
      if ((pattern & 0x7fffffffu) <= 0x7f800000u) bits.push_back(static_cast<int32_t>(pattern));
    }
  }
  // Just below infinity the weight would round to infinity; the pair still gives the value back.
  const auto master = at::tensor(bits, at::kInt).view(at::kFloat);
  const auto [weight, low] = split_master(master);
  EXPECT_TRUE(join_master(weight, low).view(at::kInt).equal(master.view(at::kInt)));
  const auto tie = at::tensor(bits, at::kInt).bitwise_and(0xffff).eq(0x8000);
  EXPECT_TRUE(weight.masked_select(~tie)
                  .view(at::kShort)
                  .equal(master.to(at::kBFloat16).masked_select(~tie).view(at::kShort)));
}

TEST(AdamW, SparseRowsEqualTheDenseGradient) {
  at::manual_seed(0);
  const int64_t V = 40, D = 24;
  for (const double decay : {0.0, 0.1}) {
    const auto a = at::randn({V, D}), b = a.clone();
    const auto ma = lazy_zeros({V, D}, at::kFloat), va = lazy_zeros({V, D}, at::kFloat),
               mb = at::zeros({V, D}), vb = at::zeros({V, D});
    const auto touched = at::zeros({V}, at::kByte);
    for (int64_t step = 1; step <= 3; ++step) {
      const auto rows = at::tensor({step, step + 5, step + 30}, at::kLong);
      const auto values = at::randn({3, D});
      const AdamWTensor sparse{.weight = a,
                               .grad = values,
                               .exp_avg = ma,
                               .exp_avg_sq = va,
                               .weight_decay = decay,
                               .rows = rows,
                               .touched = touched};
      const AdamWTensor dense{.weight = b,
                              .grad = at::zeros({V, D}).index_copy_(0, rows, values),
                              .exp_avg = mb,
                              .exp_avg_sq = vb,
                              .weight_decay = decay};
      adamw(std::span(&sparse, 1), {.step = step});
      adamw(std::span(&dense, 1), {.step = step});
    }
    EXPECT_TRUE(a.equal(b)) << decay;
    EXPECT_TRUE(touched_rows(ma, va).equal(touched));
  }
}

TEST(SumOfSquares, IsExactAndSeesInfinity) {
  at::manual_seed(0);
  const std::vector<at::Tensor> tensors{at::randn({70001}), at::randn({33}).to(at::kBFloat16)};
  double want = 0;
  for (const auto& t : tensors) want += t.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(sum_of_squares(tensors), want, 1e-10 * want);
  tensors[0][5] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(sum_of_squares(tensors)));
}

TEST(Accumulate, AddsInFp32) {
  auto main = at::ones({1001});
  const auto grad = at::randn({1001}).to(at::kBFloat16);
  accumulate_(main, grad);
  EXPECT_TRUE(main.equal(1 + grad.to(at::kFloat)));
}

}  // namespace
}  // namespace triptych

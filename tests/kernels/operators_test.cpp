// Every fused operator against its composition in fp64, values and gradients, in fp32 and bf16.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/error.h"
#include "kernels/embedding.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;
using Tensors = std::vector<at::Tensor>;

double relative(const at::Tensor& got, const at::Tensor& want) {
  const auto w = want.to(at::kDouble), g = got.to_dense().to(at::kDouble);
  return ((g - w).abs().max() / w.abs().max().clamp_min(1e-30)).item<double>();
}

/// Runs `fused` on leaves of `dtype` and `plain` on the same numbers in fp64, with one random
/// gradient, and compares the output and every gradient. Tolerances are relative to the largest
/// value.
template <class Fused, class Plain>
void compare(const Tensors& inputs, at::ScalarType dtype, double tolerance, Fused fused,
             Plain plain) {
  Tensors low, high;
  for (const auto& x : inputs) {
    low.push_back(x.to(dtype).detach().set_requires_grad(true));
    high.push_back(low.back().detach().to(at::kDouble).set_requires_grad(true));
  }
  const at::Tensor got = fused(low), want = plain(high);
  EXPECT_LE(relative(got, want), tolerance) << "value";
  const auto dy = at::randn(want.sizes());
  torch::autograd::backward({got}, {dy.to(got.scalar_type())});
  torch::autograd::backward({want}, {dy.to(got.scalar_type()).to(at::kDouble)});
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LE(relative(low[i].grad(), high[i].grad()), tolerance) << "gradient " << i;
  }
}

struct Case {
  int64_t T, D;
  at::ScalarType dtype;
  double tolerance;  // bf16: a few roundings of 2^-9 each; fp32: sums of D terms
};
class Operators : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { at::manual_seed(0); }
};

TEST_P(Operators, RmsNorm) {
  const auto [T, D, dtype, tolerance] = GetParam();
  const auto plain = [](const Tensors& x) {
    return x[0] * at::rsqrt(x[0].pow(2).mean(-1, true) + 1e-6) * x[1];
  };
  compare(
      {at::randn({T, D}), 1 + 0.1 * at::randn({D})}, dtype, tolerance,
      [](const Tensors& x) { return rms_norm(x[0], x[1], 1e-6); }, plain);
}

TEST_P(Operators, AddRmsNorm) {
  const auto [T, D, dtype, tolerance] = GetParam();
  const auto plain = [](const Tensors& x) {
    const auto sum = x[0] + x[1];
    return sum * at::rsqrt(sum.pow(2).mean(-1, true) + 1e-6) * x[2] + sum;
  };
  compare(
      {at::randn({T, D}), at::randn({T, D}), 1 + 0.1 * at::randn({D})}, dtype, tolerance,
      [](const Tensors& x) {
        const auto [sum, normed] = add_rms_norm(x[0], x[1], x[2], 1e-6);
        return normed + sum;
      },
      plain);
}

TEST_P(Operators, Swiglu) {
  const auto [T, D, dtype, tolerance] = GetParam();
  compare(
      {at::randn({T, D}), at::randn({T, D})}, dtype, tolerance,
      [](const Tensors& x) { return swiglu(x[0], x[1]); },
      [](const Tensors& x) { return at::silu(x[0]) * x[1]; });
}

TEST_P(Operators, Rotary) {
  const auto [T, D, dtype, tolerance] = GetParam();
  const int64_t K = D / 2 * 2;
  const auto angle = at::randn({T, K / 2});
  const auto both = at::cat({angle, angle}, 1);
  for (const auto table : {dtype, at::kFloat}) {
    const auto cos = both.cos().to(table), sin = both.sin().to(table);
    compare(
        {at::randn({T, 3, K})}, dtype, tolerance,
        [&](const Tensors& x) { return rotary(x[0], cos, sin); },
        [&](const Tensors& x) {
          const auto c = cos.to(at::kDouble).unsqueeze(1), s = sin.to(at::kDouble).unsqueeze(1);
          const auto turned = at::cat({-x[0].narrow(2, K / 2, K / 2), x[0].narrow(2, 0, K / 2)}, 2);
          return x[0] * c + turned * s;
        });
  }
}

TEST_P(Operators, LinearCrossEntropy) {
  const auto [T, D, dtype, tolerance] = GetParam();
  const int64_t V = 203;
  auto labels = at::randint(V, {T}, at::kLong);
  labels[0] = -100;
  const auto weights = at::rand({T});
  for (const int64_t bytes : {int64_t{1} << 28, int64_t{4000}}) {  // one chunk; many
    compare(
        {at::randn({T, D}), at::randn({V, D}) / std::sqrt(static_cast<double>(D))}, dtype,
        3 * tolerance,
        [&](const Tensors& x) {
          return linear_cross_entropy(x[0], x[1], labels, weights, {.logits_bytes = bytes}).total;
        },
        [&](const Tensors& x) {
          const auto z = at::linear(x[0], x[1]);
          const auto loss =
              z.logsumexp(1) - z.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
          return (loss * weights.to(at::kDouble) * labels.ge(0)).sum();
        });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Operators,
    testing::Values(Case{5, 64, at::kFloat, 2e-6}, Case{33, 1280, at::kFloat, 5e-6},
                    Case{7, 84, at::kFloat, 2e-6}, Case{5, 64, at::kBFloat16, 2e-2},
                    Case{130, 1280, at::kBFloat16, 2e-2}, Case{3, 18, at::kBFloat16, 2e-2}));

// Parts of the vocabulary, each with the statistics of the whole, give its loss, the gradient of h
// in shares, and the rows of the weight's gradient.
TEST_P(Operators, CrossEntropyOverPartsOfTheVocabulary) {
  const auto [T, D, dtype, tolerance] = GetParam();
  constexpr int64_t V = 300, kCut = 131;
  const auto h = at::randn({T, D}).to(dtype).set_requires_grad(true);
  const auto weight = (at::randn({V, D}) * (2 / std::sqrt(static_cast<double>(D)))).to(dtype);
  auto labels = at::randint(V, {T}, at::kLong);
  labels[0] = -100;
  if (T > 2) labels[1] = 2, labels[2] = V - 1;
  const auto weights = at::rand({T});
  const auto high = h.detach().to(at::kDouble).set_requires_grad(true),
             high_weight = weight.to(at::kDouble).set_requires_grad(true);
  const auto z = at::linear(high, high_weight);
  const auto lse = z.logsumexp(1),
             target = z.gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1);
  const auto loss = ((lse - target) * weights.to(at::kDouble) * labels.ge(0)).sum();
  loss.backward();

  for (const int64_t bytes : {int64_t{1} << 28, int64_t{4000}}) {
    h.mutable_grad().reset();
    Tensors rows;
    for (const auto& [first, last] : {std::pair(int64_t{0}, kCut), std::pair(kCut, V)}) {
      const auto part = weight.slice(0, first, last).detach().clone().set_requires_grad(true);
      const auto local = z.slice(1, first, last).detach();
      int calls = 0;
      const auto got = linear_cross_entropy(
          h, part, labels, weights, {.logits_bytes = bytes},
          {.first = first, .size = V, .join = [&](const at::Tensor& lse_N, const at::Tensor& t_N) {
             ++calls;
             EXPECT_LE(relative(lse_N, local.logsumexp(1)), tolerance);
             lse_N.copy_(lse.detach());
             t_N.copy_(target.detach());
           }});
      EXPECT_EQ(calls, 1);
      EXPECT_LE(relative(got.total, loss.detach()), tolerance);
      got.total.backward();
      rows.push_back(part.grad());
    }
    EXPECT_LE(relative(h.grad(), high.grad()), tolerance);
    EXPECT_LE(relative(at::cat(rows), high_weight.grad()), tolerance);
  }
}

struct AttentionCase {
  std::vector<int64_t> bounds;
  int64_t H, G, K;
  bool causal;
  at::ScalarType dtype;
  double tolerance;
};
class Attention : public testing::TestWithParam<AttentionCase> {};

at::Tensor plain_attention(const Tensors& x, const std::vector<int64_t>& bounds, bool causal) {
  const int64_t H = x[0].size(1), G = x[1].size(1);
  Tensors parts;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    const auto cut = [&](const at::Tensor& t) {
      return t.slice(0, bounds[i], bounds[i + 1])
          .repeat_interleave(H / t.size(1), 1)
          .transpose(0, 1);
    };
    auto z = at::matmul(cut(x[0]), cut(x[1]).transpose(1, 2)) /
             std::sqrt(static_cast<double>(x[0].size(2)));
    if (causal) z = z.masked_fill(at::ones(z.sizes().slice(1), at::kBool).triu(1), -1e300);
    parts.push_back(at::matmul(z.softmax(-1), cut(x[2])).transpose(0, 1));
  }
  static_cast<void>(G);
  return at::cat(parts);
}

TEST_P(Attention, SegmentsNeverSeeEachOther) {
  at::manual_seed(0);
  const auto& c = GetParam();
  const int64_t T = c.bounds.back();
  compare(
      {at::randn({T, c.H, c.K}), at::randn({T, c.G, c.K}), at::randn({T, c.G, c.K})}, c.dtype,
      c.tolerance,
      [&](const Tensors& x) {
        return varlen_attention(x[0], x[1], x[2], at::tensor(c.bounds, at::kLong),
                                {.causal = c.causal});
      },
      [&](const Tensors& x) { return plain_attention(x, c.bounds, c.causal); });
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Attention,
    testing::Values(AttentionCase{{0, 7}, 4, 4, 16, true, at::kFloat, 1e-5},
                    AttentionCase{
                        {0, 5, 5, 12, 29}, 4, 2, 16, true, at::kFloat, 1e-5},  // an empty segment
                    AttentionCase{{0, 64, 128, 150}, 4, 4, 80, false, at::kFloat, 1e-5},  // windows
                    AttentionCase{{0, 33, 70}, 8, 2, 128, true, at::kBFloat16, 3e-2},
                    AttentionCase{{0, 64, 128, 150}, 2, 2, 80, false, at::kBFloat16, 3e-2}));

TEST(Attention, CacheEqualsTheWholeRow) {
  at::manual_seed(0);
  const auto q = at::randn({9, 4, 16}), k = at::randn({9, 2, 16}), v = at::randn({9, 2, 16});
  const auto whole = varlen_attention(q, k, v, at::tensor({0, 9}, at::kLong), {.causal = true});
  EXPECT_TRUE(at::allclose(cached_attention(q.slice(0, 8), k, v), whole.slice(0, 8), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(cached_attention(q.slice(0, 5), k, v), whole.slice(0, 5), 1e-5, 1e-6));
}

TEST(AttentionErrors, NamesBothHeadCounts) {
  EXPECT_THAT(
      [] {
        varlen_attention(at::zeros({4, 5, 8}), at::zeros({4, 2, 8}), at::zeros({4, 2, 8}),
                         at::tensor({0, 4}, at::kLong));
      },
      ThrowsMessage<Error>(HasSubstr("H=5 must be a multiple of key/value heads G=2")));
}

TEST(EmbeddingRows, GradientHasOnlyTheRowsThatOccur) {
  at::manual_seed(0);
  const auto table = at::randn({50, 8}).set_requires_grad(true);
  const auto ids = at::tensor({7, 3, 7, 49}, at::kLong);
  const auto dy = at::randn({4, 8});
  torch::autograd::backward({embedding_rows(table, ids)}, {dy});
  const auto& stored = table.grad();
  ASSERT_TRUE(stored.is_sparse());
  ASSERT_EQ(stored._nnz(), 3);  // already one entry a row
  const auto grad = stored.coalesce();
  EXPECT_TRUE(grad.indices()[0].equal(at::tensor({3, 7, 49}, at::kLong)));
  EXPECT_TRUE(at::allclose(grad.values()[1], dy[0] + dy[2]));
}

TEST(Operators, TakeNoRows) {
  EXPECT_EQ(rms_norm(at::zeros({0, 8}), at::ones({8}), 1e-6).size(0), 0);
  EXPECT_EQ(swiglu(at::zeros({0, 8}), at::zeros({0, 8})).size(0), 0);
  EXPECT_EQ(linear_cross_entropy(at::zeros({0, 8}), at::zeros({5, 8}), at::zeros({0}, at::kLong))
                .total.item<double>(),
            0);
}

}  // namespace
}  // namespace triptych

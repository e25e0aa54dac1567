// Every operator on CUDA against the CPU, values and gradients; the optimizer, the checkpoint
// writer and NCCL on tensors of a GPU.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>
#include <unistd.h>

#include <filesystem>

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/optimizer_state.h"
#include "kernels/adamw.h"
#include "kernels/embedding.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"
#include "parallel/process_context.h"

namespace triptych {
namespace {

using Tensors = std::vector<at::Tensor>;

double relative(const at::Tensor& got, const at::Tensor& want) {
  const auto g = got.to_dense().to(at::kCPU, at::kDouble), w = want.to_dense().to(at::kDouble);
  return ((g - w).abs().max() / w.abs().max().clamp_min(1e-30)).item<double>();
}

struct Case {
  at::ScalarType dtype;
  double tolerance;  // bf16: the two sides round in other places, a few times 2^-9 each
};
class OnGpu : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { at::manual_seed(0); }

  /// `run` on the same leaves on both devices, with one random gradient.
  void compare(const Tensors& inputs, const std::function<at::Tensor(const Tensors&)>& run) {
    Tensors here, there;
    for (const auto& x : inputs) {
      here.push_back(x.to(GetParam().dtype).detach().set_requires_grad(true));
      there.push_back(here.back().detach().to(at::kCUDA).set_requires_grad(true));
    }
    const auto want = run(here), got = run(there);
    EXPECT_LE(relative(got.detach(), want.detach()), GetParam().tolerance) << "value";
    const auto dy = at::randn(want.sizes()).to(want.scalar_type());
    torch::autograd::backward({want}, {dy});
    torch::autograd::backward({got}, {dy.to(at::kCUDA)});
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_LE(relative(there[i].grad(), here[i].grad()), GetParam().tolerance)
          << "gradient " << i;
    }
  }
};

TEST_P(OnGpu, RmsNorm) {
  compare({at::randn({17, 64}), at::randn({64})},
          [](const Tensors& x) { return rms_norm(x[0], x[1], 1e-6); });
}
TEST_P(OnGpu, AddRmsNorm) {
  compare({at::randn({17, 64}), at::randn({17, 64}), at::randn({64})}, [](const Tensors& x) {
    const auto [sum, y] = add_rms_norm(x[0], x[1], x[2], 1e-6);
    return sum + y;
  });
}
TEST_P(OnGpu, Rotary) {
  const auto angles = at::rand({17, 40}) * 6;
  compare({at::randn({17, 3, 40})}, [&](const Tensors& x) {
    return rotary(x[0], angles.cos().to(x[0].device()), angles.sin().to(x[0].device()));
  });
}
TEST_P(OnGpu, SplitRotary) {
  const auto angles = at::rand({17, 40}) * 6;
  compare({at::randn({17, 3, 2, 40})}, [&](const Tensors& x) {
    const auto [q, k, v] =
        split_rotary(x[0], angles.cos().to(x[0].device()), angles.sin().to(x[0].device()));
    return q + k * 2 + v * 3;
  });
}
TEST_P(OnGpu, Swiglu) {
  compare({at::randn({17, 48}), at::randn({17, 48})},
          [](const Tensors& x) { return swiglu(x[0], x[1]); });
  compare({at::randn({17, 96})}, [](const Tensors& x) { return swiglu_packed(x[0]); });
}
TEST_P(OnGpu, VarlenAttention) {
  const auto bounds = at::tensor({0, 5, 5, 17, 40}, at::kInt);
  for (const bool causal : {false, true}) {
    compare({at::randn({40, 4, 32}), at::randn({40, 2, 32}), at::randn({40, 2, 32})},
            [&](const Tensors& x) {
              return varlen_attention(x[0], x[1], x[2], bounds, {.causal = causal});
            });
  }
}
TEST_P(OnGpu, CachedAttention) {
  const at::NoGradGuard no_grad;
  const auto q = at::randn({3, 4, 32}).to(GetParam().dtype),
             k = at::randn({20, 2, 32}).to(GetParam().dtype), v = at::randn_like(k);
  const auto got = cached_attention(q.to(at::kCUDA), k.to(at::kCUDA), v.to(at::kCUDA));
  EXPECT_LE(relative(got, cached_attention(q, k, v)), GetParam().tolerance);
}
TEST_P(OnGpu, Embedding) {
  const auto ids = at::tensor({3, 1, 3, 9, 0}, at::kLong);
  compare({at::randn({10, 16})},
          [&](const Tensors& x) { return embedding_rows(x[0], ids.to(x[0].device())); });
}
TEST_P(OnGpu, LinearCrossEntropy) {
  const auto labels = at::tensor({1, -100, 7, 99}, at::kLong);
  for (const int64_t bytes : {int64_t{1} << 20, int64_t{400}}) {  // one chunk; many
    compare({at::randn({4, 32}), at::randn({100, 32})}, [&](const Tensors& x) {
      return linear_cross_entropy(x[0], x[1], labels.to(x[0].device()), {}, {.logits_bytes = bytes})
          .total;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Types, OnGpu,
                         testing::Values(Case{at::kFloat, 1e-4}, Case{at::kBFloat16, 3e-2}),
                         [](const auto& info) { return c10::toString(info.param.dtype); });

TEST(OptimizerOnGpu, TakesTheStepOfTheCpu) {
  at::manual_seed(0);
  const auto master = at::randn({1000});
  const auto split = split_master(master);
  struct Side {
    at::Tensor weight, low, m, v;
  };
  const auto make = [&](at::Device device) {
    return Side{split.weight.to(device, /*dtype=*/at::kBFloat16, false, true),
                split.low.to(device, at::kShort, false, true), at::zeros({1000}, device),
                at::zeros({1000}, device)};
  };
  Side here = make(at::kCPU), there = make(at::kCUDA);
  for (int64_t step = 1; step <= 5; ++step) {
    const auto grad = at::randn({1000});
    for (Side* side : {&here, &there}) {
      const AdamWTensor tensor{.weight = side->weight,
                               .grad = grad.to(side->weight.device()),
                               .exp_avg = side->m,
                               .exp_avg_sq = side->v,
                               .low = side->low,
                               .weight_decay = 0.1};
      adamw(std::span(&tensor, 1), {.step = step, .learning_rate = 1e-2});
    }
  }
  EXPECT_LE(relative(join_master(there.weight, there.low), join_master(here.weight, here.low)),
            1e-5);
  const Tensors both = {there.m, there.v};
  const Tensors expected = {here.m, here.v};
  EXPECT_NEAR(sum_of_squares(both) / sum_of_squares(expected), 1, 1e-5);
}

/// A tensor of several of the writer's page-locked buffers, changed right after `before_update`.
TEST(CheckpointOnGpu, HoldsWhatWasThereAtSave) {
  const auto output =
      std::filesystem::temp_directory_path() / ("triptych_cuda_" + std::to_string(::getpid()));
  const int64_t rows = 3 << 20;
  const auto state = at::arange(rows * 16, at::TensorOptions(at::kCUDA).dtype(at::kFloat));
  const auto want = state.cpu();
  {
    CheckpointWriter writer({.output = output, .keep = 0});
    const WeightsToSave weights{
        .layout = make_layout({{"w", at::kFloat, {rows, 16}}}),
        .provider = [&](const std::string&) { return state.view({rows, 16}); }};
    for (const int64_t step : {1, 2}) {
      writer.save(step, weights,
                  {{"w", "exp_avg", {rows, 16}, 0, rows * 16, [&] { return state; }, {}}},
                  Json::object());
      writer.before_update();
      if (step == 1) continue;
      state.fill_(-1);
    }
    writer.wait();
  }
  for (const int64_t step : {1, 2}) {
    const auto checkpoint =
        open_checkpoint(output / "checkpoints" / checkpoint_name(step), /*verify=*/true);
    EXPECT_TRUE(HubFolder::open(checkpoint.weights()).read("w").flatten().equal(want)) << step;
    const auto read = at::empty({rows * 16});
    OptimizerStateReader(checkpoint.optimizer()).read_range("w", "exp_avg", 0, rows * 16, read);
    EXPECT_TRUE(read.equal(want)) << step;
  }
  std::filesystem::remove_all(output);
}

TEST(ProcessOnGpu, TakesItsDeviceAndRefusesOneThatIsNotThere) {
  ProcessContext process({.local_world_size = 1}, {.device = c10::DeviceType::CUDA});
  EXPECT_FALSE(process.any(false));
  EXPECT_THROW(
      ProcessContext({.local_rank = 99, .local_world_size = 1}, {.device = c10::DeviceType::CUDA}),
      std::exception);
}

}  // namespace
}  // namespace triptych

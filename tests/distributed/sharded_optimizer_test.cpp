// Every layout of data-parallel ranks must give the loss curve and the weights of one process.
#include "parallel/sharded_optimizer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "base/files.h"
#include "ranks.h"
#include "support/scratch.h"
#include "tiny_training.h"

namespace triptych {
namespace {

using testing_ranks::run_ranks;

int train_rank(const Json& config) {
  ProcessContext process(read_launch_environment(), {.threads = 1, .timeout_s = 20, .poll_s = 0.2});
  const auto run = TinyRun::from_json(config);
  const auto result = train_tiny(process, run);
  write_file_atomically(run.result + std::to_string(process.rank()), dump_json(result.to_json()));
  process.close();
  return 0;
}

TinyResult train_alone(const TinyRun& run) {
  ProcessContext process({.local_world_size = 1}, {.threads = 1});
  return train_tiny(process, run);
}

/// The results of all ranks.
std::vector<TinyResult> train_together(int ranks, TinyRun run) {
  const Scratch folder;
  run.result = folder / "result";
  const auto ended = run_ranks(ranks, "train", run.to_json());
  std::vector<TinyResult> results;
  for (int r = 0; r < ranks; ++r) {
    const auto& rank = ended.ranks[static_cast<size_t>(r)];
    EXPECT_EQ(rank.status, 0) << "rank " << r << ":\n" << rank.output;
    if (rank.status != 0) return {};
    results.push_back(TinyResult::from_json(read_json(run.result + std::to_string(r))));
  }
  return results;
}

void expect_curve(const std::vector<double>& got, const std::vector<double>& want,
                  double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], want[i], tolerance * std::abs(want[i])) << "step " << i;
  }
}

struct Layout {
  int ranks;
  int64_t zero, micro_batch, bucket_elements;
  bool overlap;
  int64_t zero_group = 0;
};
void PrintTo(const Layout& l, std::ostream* out) {
  *out << l.ranks << " ranks, zero " << l.zero << ", micro-batch " << l.micro_batch << ", buckets "
       << l.bucket_elements << (l.overlap ? "" : ", no overlap") << ", shard group "
       << l.zero_group;
}
class Layouts : public testing::TestWithParam<Layout> {};

// fp32: only the order of sums differs. Measured: 2e-7.
TEST_P(Layouts, EqualOneProcess) {
  const auto [ranks, zero, micro_batch, bucket_elements, overlap, zero_group] = GetParam();
  const auto want = train_alone({.micro_batch = 1});
  const auto got = train_together(ranks, {.micro_batch = micro_batch,
                                          .zero = zero,
                                          .bucket_elements = bucket_elements,
                                          .zero_group = zero_group,
                                          .overlap = overlap});
  for (const auto& result : got) {
    expect_curve(result.losses, want.losses, 1e-6);
    expect_curve(result.norms, want.norms, 1e-6);
    EXPECT_LE(difference(result.weights, want.weights), 1e-6);
    EXPECT_LE(difference(result.states, want.states), 2e-5);  // squares of gradients near zero
    EXPECT_EQ(result.weights, got.front().weights) << "replicas differ";
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, Layouts,
                         testing::Values(Layout{2, 1, 1, 600, true},  // six micro-batches a rank
                                         Layout{2, 0, 1, 600, true},
                                         Layout{2, 1, 6, 600, true},  // one micro-batch a rank
                                         Layout{2, 1, 3, 0, true},    // one bucket
                                         Layout{3, 1, 2, 300, false}, Layout{3, 0, 4, 300, true},
                                         Layout{4, 1, 1, 1, true},  // a bucket a parameter
                                         Layout{4, 0, 3, 600, false},
                                         Layout{2, 2, 1, 600, true},  // six reductions a bucket
                                         Layout{2, 2, 6, 600, true}, Layout{3, 2, 1, 1, true},
                                         Layout{3, 2, 2, 300, false},
                                         // two groups of two: sums over the replicas of a shard
                                         Layout{4, 1, 1, 600, true, 2},
                                         Layout{4, 2, 1, 300, true, 2},
                                         Layout{2, 2, 1, 300, true, 1}));

TEST(OneProcess, AccumulationChangesNothing) {
  const auto want = train_alone({.micro_batch = 12});
  for (const int64_t micro_batch : {1, 4}) {
    const auto got = train_alone({.micro_batch = micro_batch});
    expect_curve(got.losses, want.losses, 1e-6);
    EXPECT_LE(difference(got.weights, want.weights), 1e-6);
  }
}

// With a nested backward a hook fires several times; the bucket must wait for the last one.
TEST(RepeatedBackward, IsLearnedAndAwaited) {
  const auto want = train_alone({});
  for (const auto& result :
       train_together(2, {.micro_batch = 3, .bucket_elements = 0, .backward_by_row = true})) {
    expect_curve(result.losses, want.losses, 1e-6);
    EXPECT_LE(difference(result.weights, want.weights), 1e-6);
  }
}

// bf16: against the fp32 run, no layout may be further off than 1.5 times one bf16 process.
TEST(Bf16, LayoutsAreAsCloseToFp32AsOneProcess) {
  const auto exact = train_alone({.steps = 4});
  const auto alone = train_alone({.micro_batch = 12, .steps = 4, .bf16 = true});
  const double bound = 1.5 * difference(alone.weights, exact.weights);
  EXPECT_LT(bound, 0.05);
  const auto accumulated = train_alone({.micro_batch = 2, .steps = 4, .bf16 = true});
  EXPECT_LE(difference(accumulated.weights, exact.weights), bound);
  for (const auto& result : train_together(2, {.micro_batch = 3, .steps = 4, .bf16 = true})) {
    EXPECT_LE(difference(result.weights, exact.weights), bound);
    for (size_t i = 0; i < exact.losses.size(); ++i) {
      EXPECT_NEAR(result.losses[i], exact.losses[i], 0.01);
    }
  }
}

// A parameter that no sample of a step uses is left out, as torch.optim leaves out grad = None.
TEST(UnusedParameter, IsNotEvenDecayed) {
  const auto before = train_alone({.steps = 0}),
             after = train_alone({.steps = 3, .decay_all = true});
  EXPECT_EQ(after.weights.at("unused"), before.weights.at("unused"));
  EXPECT_NE(after.weights.at("picture"), before.weights.at("picture"));
  for (const auto& result : train_together(2, {.micro_batch = 2, .steps = 3, .decay_all = true})) {
    EXPECT_EQ(result.weights.at("unused"), before.weights.at("unused"));
    EXPECT_LE(difference(result.weights, after.weights), 1e-6);
  }
}

TEST(NotFinite, SkipsTheUpdateOnEveryRank) {
  const auto before = train_alone({.steps = 2});
  const auto got = train_together(3, {.micro_batch = 2, .steps = 5, .nan_step = 2, .nan_rank = 1});
  for (const auto& result : got) {
    EXPECT_EQ(result.updated, (std::vector<bool>{true, true, false}));
    EXPECT_LE(difference(result.weights, before.weights), 1e-6);
  }
}

struct Resume {
  int from, to;
  int64_t zero_from, zero_to;
  bool bf16;
};
class Resumes : public testing::TestWithParam<Resume> {};

TEST_P(Resumes, OnAnotherLayoutGoesOnAsIfNothingHappened) {
  const auto [from, to, zero_from, zero_to, bf16] = GetParam();
  const Scratch folder;
  TinyRun first{.steps = 3, .zero = zero_from, .bf16 = bf16, .save = folder.path()};
  TinyRun second{.steps = 0, .zero = zero_to, .bf16 = bf16, .load = folder.path()};
  const auto run = [](int ranks, const TinyRun& r) {
    return ranks == 1 ? std::vector{train_alone(r)} : train_together(ranks, r);
  };
  const auto saved = run(from, first);
  ASSERT_FALSE(saved.empty());
  for (const auto& result : run(to, second)) {  // bit by bit
    EXPECT_EQ(result.states, saved.front().states);
    EXPECT_EQ(result.weights, saved.front().weights);
  }
  if (bf16) return;
  second.steps = 2;
  const auto whole = train_alone({.steps = 5});
  for (const auto& result : run(to, second)) {
    expect_curve(result.losses, {whole.losses[3], whole.losses[4]}, 1e-6);
    EXPECT_LE(difference(result.weights, whole.weights), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, Resumes,
                         testing::Values(Resume{2, 3, 1, 1, false}, Resume{2, 3, 1, 1, true},
                                         Resume{3, 1, 1, 1, false}, Resume{1, 2, 1, 0, true},
                                         Resume{2, 3, 2, 2, true}, Resume{3, 2, 0, 2, false}));

// Against the formula written out in fp64, decay on matrices only.
TEST(AdamW, EqualsTheTextbook) {
  ProcessContext process;
  const auto matrix = std::make_shared<Parameter>(), bias = std::make_shared<Parameter>();
  matrix->name = "matrix";
  bias->name = "bias";
  matrix->full_shape = {2, 3};
  bias->full_shape = {3};
  at::manual_seed(0);
  matrix->value = at::randn({2, 3});
  bias->value = at::randn({3});
  auto w = matrix->value.to(at::kDouble).clone(), b = bias->value.to(at::kDouble).clone();
  ShardedOptimizer optimizer({matrix, bias}, {.beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.3}, {},
                             optimizer_groups(process, 1));
  auto mw = at::zeros_like(w), vw = at::zeros_like(w), mb = at::zeros_like(b),
       vb = at::zeros_like(b);
  for (int64_t t = 1; t <= 4; ++t) {
    const auto gw = at::randn({2, 3}), gb = at::randn({3});
    optimizer.begin_step(1);
    ((matrix->value * gw).sum() + (bias->value * gb).sum()).backward();
    optimizer.finish_micro_batch();
    const double norm = std::sqrt(gw.to(at::kDouble).square().sum().item<double>() +
                                  gb.to(at::kDouble).square().sum().item<double>());
    EXPECT_NEAR(optimizer.norm(), norm, 1e-6 * norm);
    const auto done = optimizer.step({.learning_rate = 0.05, .scale = 2, .clip_norm = 0.7});
    EXPECT_NEAR(done.norm, 2 * norm, 2e-6 * norm);
    const double factor = 2 * std::min(1.0, 0.7 / (2 * norm + 1e-6));
    const auto update = [&](at::Tensor& p, at::Tensor& m, at::Tensor& v, const at::Tensor& grad,
                            double decay) {
      const auto g = grad.to(at::kDouble) * factor;
      p = p * (1 - 0.05 * decay);
      m = m * 0.8 + g * 0.2;
      v = v * 0.9 + g * g * 0.1;
      const double c1 = 1 - std::pow(0.8, t), c2 = 1 - std::pow(0.9, t);
      p = p - m / c1 * 0.05 / ((v / c2).sqrt() + 1e-8);
    };
    update(w, mw, vw, gw, 0.3);
    update(b, mb, vb, gb, 0);
    EXPECT_LE((matrix->value.to(at::kDouble) - w).abs().max().item<double>(), 1e-6);
    EXPECT_LE((bias->value.to(at::kDouble) - b).abs().max().item<double>(), 1e-6);
  }
}

// One process, one micro-batch: no fp32 gradient, no flat buffer, weights where they were.
TEST(OneProcess, MovesAndCopiesNothing) {
  ProcessContext process;
  const auto p = std::make_shared<Parameter>();
  p->name = "w";
  p->full_shape = {64, 64};
  p->value = at::ones({64, 64}, at::kBFloat16);
  const void* before = p->value.data_ptr();
  ShardedOptimizer optimizer({p}, {}, {}, optimizer_groups(process, 1));
  optimizer.begin_step(1);
  p->value.sum().backward();
  optimizer.finish_micro_batch();
  EXPECT_TRUE(p->value.grad().defined());
  EXPECT_EQ(optimizer.gradient(optimizer.ranges().front()).numel(), 64 * 64);
  optimizer.step({.learning_rate = 1e-3});
  EXPECT_EQ(p->value.data_ptr(), before);
  EXPECT_FALSE(p->value.grad().defined());
  EXPECT_EQ(optimizer.state_bytes(), 64 * 64 * (4 + 4 + 2));
}

TEST(Misuse, IsNamed) {
  ProcessContext process;
  const auto p = std::make_shared<Parameter>();
  p->name = "w";
  p->full_shape = {2};
  p->value = at::ones({2});
  ShardedOptimizer optimizer({p}, {}, {}, optimizer_groups(process, 1));
  optimizer.begin_step(2);
  optimizer.finish_micro_batch();
  const auto message = [](const char* text) {
    return testing::ThrowsMessage<Error>(testing::HasSubstr(text));
  };
  EXPECT_THAT([&] { optimizer.norm(); }, message("1 of 2 are done"));
  EXPECT_THAT([&] { optimizer.set_state("v", StateKind::kMaster, 0, 1, at::ones({1})); },
              message("no trained parameter 'v'"));
  EXPECT_THAT([&] { optimizer.set_state("w", StateKind::kMaster, 1, 3, at::ones({2})); },
              message("has 2 elements"));
  EXPECT_THAT([&] { ShardedOptimizer({p, p}, {}, {}, {}); }, message("two parameters"));
  EXPECT_THAT([&] { ShardedOptimizer({p}, {}, {.zero = 4}, {}); }, message("allowed: 0, 1, 2, 3"));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("train", triptych::train_rank);
  return triptych::testing_ranks::run_main(argc, argv);
}

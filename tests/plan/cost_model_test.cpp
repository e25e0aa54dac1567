// The cost model on plans made by hand: each term against the arithmetic that the header promises.

#include "plan/cost_model.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "plan/rank_time.h"
#include "plan/report.h"

namespace triptych {
namespace {

using testing::DoubleNear;
using testing::HasSubstr;

// Round numbers: 1 Tflop/s of products, half of it in attention forward and a quarter in backward.
Machine round_machine() {
  return {.name = "round",
          .peak_flop = 2e12,
          .matmul_efficiency = 0.5,
          .attention_forward_efficiency = 0.25,
          .attention_backward_efficiency = 0.125,
          .memory_bandwidth = 1e12,
          .memory_efficiency = 1,
          .memory_bytes = int64_t{1} << 30,
          .devices_per_host = 8,
          .link_bandwidth = 1e9,
          .link_latency = 0,
          .network_bandwidth = 1e8,
          .network_latency = 0,
          .launch_s = 0};
}

/// One rank of one process that computes for 1 s forward, 1 s for each kind of gradient.
RunPlan one_rank() {
  RunPlan plan{.micro_batches = 1, .pipeline = {}, .step_flop = 3e12, .step_tokens = 100};
  plan.ranks.push_back(
      {.chunks = {{.forward = 1e12, .backward_input = 1e12, .backward_weight = 1e12}}});
  return plan;
}

Traffic traffic(int64_t ranks, int64_t calls, int64_t bytes) {
  return {.ranks = ranks, .first = 0, .last = ranks - 1, .calls = calls, .bytes = bytes};
}

constexpr double kExact = 1e-9;  // sums and products of a few round numbers

TEST(CostModel, ComputeIsFlopByTheirEfficiencies) {
  auto plan = one_rank();
  auto& work = plan.ranks[0].chunks[0];
  work.attention_forward = 1e11;   // 0.2 s
  work.attention_backward = 1e11;  // 0.4 s
  const auto step = predict_step({}, plan, round_machine());
  EXPECT_THAT(step.compute, DoubleNear(3.6, kExact));
  EXPECT_THAT(step.attention, DoubleNear(0.6, kExact));
  EXPECT_THAT(step.step, DoubleNear(3.6, kExact));
  EXPECT_THAT(step.mfu, DoubleNear(3e12 / (3.6 * 2e12), kExact));
  EXPECT_THAT(step.tokens_per_second, DoubleNear(100 / 3.6, kExact));
}

TEST(CostModel, HardwareFlopCountWhatIsComputedAgain) {
  auto plan = one_rank();
  plan.ranks[0].chunks[0].recomputed = 1e12;
  const auto step = predict_step({}, plan, round_machine());
  EXPECT_THAT(step.step, DoubleNear(4, kExact));
  EXPECT_THAT(step.mfu, DoubleNear(3.0 / 8, kExact));
  EXPECT_THAT(step.hfu, DoubleNear(4.0 / 8, kExact));
}

TEST(CostModel, ACpuLaunchesBetweenItsKernels) {
  auto plan = one_rank();
  plan.ranks[0].made_tensors = 1000;
  auto m = round_machine();
  m.launch_s = 1e-3;
  EXPECT_THAT(predict_step({}, plan, m).step, DoubleNear(3, kExact));  // queued meanwhile
  m.launches_ahead = false;
  EXPECT_THAT(predict_step({}, plan, m).step, DoubleNear(4, kExact));
}

// 2 GB over 1 GB/s beside 2 s of attention of which a part is on its way half of the time.
TEST(CostModel, TheRingHidesBehindAttentionAlone) {
  auto plan = one_rank();
  plan.processes = plan.mesh.context = 2;
  auto& rank = plan.ranks[0];
  rank.chunks[0] = {.forward = 1e13, .attention_forward = 1e12};
  rank.traffic[{"context", "all_to_all"}] = traffic(2, 4, 2'000'000'000);
  RunOptions options;
  options.parallel.context = 2;
  options.parallel.context_algorithm = ContextAlgorithm::kRing;
  const auto ring = predict_step(options, plan, round_machine());
  EXPECT_THAT(ring.layers, DoubleNear(1, kExact));
  EXPECT_THAT(ring.hidden, DoubleNear(1, kExact));

  // Ulysses waits, whatever the algorithm's name: a hybrid whose heads reach all around.
  options.parallel.context_algorithm = ContextAlgorithm::kHybrid;
  plan.mesh.ulysses = 2;
  const auto ulysses = predict_step(options, plan, round_machine());
  EXPECT_THAT(ulysses.layers, DoubleNear(2, kExact));
}

TEST(CostModel, ExchangesOfBackwardHideBehindWeightGradients) {
  auto plan = one_rank();
  plan.processes = plan.mesh.tensor = 2;
  auto& rank = plan.ranks[0];
  rank.traffic[{"tensor", "all_gather"}] = traffic(2, 4, 2'000'000'000);  // 1 s
  RunOptions options;
  options.parallel.tensor = 2;
  // Half of it is backward's, of which seven tenths are hidden.
  EXPECT_THAT(predict_step(options, plan, round_machine()).layers, DoubleNear(0.65, kExact));
  rank.chunks[0].backward_weight = 1e11;  // 0.1 s: no more can hide
  EXPECT_THAT(predict_step(options, plan, round_machine()).layers, DoubleNear(0.9, kExact));
  options.parallel.overlap = false;
  EXPECT_THAT(predict_step(options, plan, round_machine()).layers, DoubleNear(1, kExact));
}

TEST(CostModel, OffloadIsNotFree) {
  auto plan = one_rank();
  auto& rank = plan.ranks[0];
  rank.state_bytes = rank.host_state_bytes = 1'000'000'000;
  rank.offloaded_bytes = 3'000'000'000;
  auto m = round_machine();
  m.host_bandwidth = 1e9;
  const auto step = predict_step({}, plan, m);
  // 3 s out beside 1 s of forward, 3 s back beside 2 s of backward
  EXPECT_THAT(step.offload, DoubleNear(3, kExact));
  // states read and written on the device, and 1 s each way
  EXPECT_THAT(step.optimizer, DoubleNear(2.003, kExact));
}

TEST(CostModel, ALoaderThatIsTooSlowIsWaitedFor) {
  auto plan = one_rank();
  plan.step_pictures = 10'000;
  auto m = round_machine();
  m.picture_s = 1e-3;
  RunOptions options;
  options.data.workers = 2;  // 5 s for what takes 3
  const auto step = predict_step(options, plan, m);
  EXPECT_THAT(step.data, DoubleNear(2, kExact));
  EXPECT_THAT(step.step, DoubleNear(5, kExact));
  options.data.workers = 4;
  EXPECT_THAT(predict_step(options, plan, m).data, DoubleNear(0, kExact));
}

TEST(CostModel, MeasuredExchangesTakeThePlaceOfTheLink) {
  auto m = round_machine();
  m.exchanges["all_reduce"] = {.latency = 0.5, .bandwidth = 2e9};
  const auto four_gigabytes = traffic(2, 2, 4'000'000'000);  // sent once each: 2 (n - 1) / n
  EXPECT_THAT(exchange_seconds("all_reduce", four_gigabytes, m), DoubleNear(3, kExact));
  EXPECT_THAT(exchange_seconds("all_gather", four_gigabytes, m), DoubleNear(2, kExact));
  auto far = four_gigabytes;
  far.last = 8;  // another host
  EXPECT_THAT(exchange_seconds("all_reduce", far, m), DoubleNear(40, kExact));
}

TEST(CostModel, TermsAddUpToTheStep) {
  auto plan = one_rank();
  auto& rank = plan.ranks[0];
  rank.chunks[0].attention_forward = 1e11;
  rank.made_bytes = 1'000'000'000;
  rank.made_tensors = 10;
  rank.state_bytes = 2'000'000'000;
  rank.traffic[{"tensor", "all_gather"}] = traffic(2, 4, 2'000'000'000);
  rank.traffic[{"shards", "reduce_scatter"}] = traffic(2, 4, 8'000'000'000);
  auto m = round_machine();
  m.launch_s = 1e-3;
  m.launches_ahead = false;
  const auto step = predict_step({}, plan, m);
  const auto terms = explain_step({}, plan, m, step);
  double sum = 0;
  for (const auto& term : terms) sum += term.in_step ? term.seconds : 0;
  EXPECT_THAT(sum, DoubleNear(step.step, kExact));
  EXPECT_GT(step.gradients, 0);
  const auto text = terms_text(terms, step);
  EXPECT_THAT(text, HasSubstr("3.00T flop / (2.00T flop/s x 0.50)"));
  EXPECT_THAT(text, HasSubstr("10 x 1e+03 us"));
}

TEST(Machine, AProcessGetsItsShareOfACpu) {
  const Machine whole{.name = "whole",
                      .peak_flop = 8,
                      .memory_bandwidth = 8,
                      .memory_bytes = 8,
                      .link_bandwidth = 8};
  const auto quarter = share_of(whole, 4, /*threads=*/2, /*cores=*/8);
  EXPECT_EQ(quarter.peak_flop, 2);
  EXPECT_EQ(quarter.memory_bandwidth, 2);
  EXPECT_EQ(quarter.memory_bytes, 2);
  EXPECT_EQ(quarter.devices_per_host, 4);
  EXPECT_EQ(share_of(whole, 1, /*threads=*/2, 8).peak_flop, 2);     // a run of two threads
  EXPECT_EQ(share_of(whole, 16, /*threads=*/1, 8).peak_flop, 0.5);  // more processes than cores
}

TEST(Machine, Fp32HasAPeakOfItsOwn) {
  EXPECT_EQ(machine("h100", at::kBFloat16).peak_flop, 989e12);
  EXPECT_EQ(machine("h100", at::kFloat).peak_flop, 67e12);
  EXPECT_EQ(machine("a100", at::kFloat).peak_flop, 19.5e12);
  EXPECT_THROW(machine("h1000", at::kFloat), UsageError);
}

TEST(Fit, NamesTheRanksThatDoNotFit) {
  RunPlan plan;
  plan.ranks = {{.rank = 0, .start_bytes = 900}, {.rank = 1, .start_bytes = 950}};
  EXPECT_EQ(fit_text(plan, 1000, 0.95), "");
  EXPECT_THAT(fit_text(plan, 1000, 0.92), HasSubstr("rank 1 does not fit"));
  EXPECT_THAT(fit_text(plan, 1000, 0.92), testing::Not(HasSubstr("rank 0")));
}

}  // namespace
}  // namespace triptych

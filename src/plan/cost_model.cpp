#include "plan/cost_model.h"

#include <algorithm>

#include "base/error.h"
#include "plan/rank_time.h"

namespace triptych {

namespace {

/// The slowest rank of a pipeline stage.
struct StageTime {
  int64_t rank = 0;
  RankTime time;
  double recomputed = 0;  ///< flop a step, the mean of its ranks
};

std::vector<StageTime> slowest_of_stages(const RunOptions& options, const RunPlan& plan,
                                         const Machine& m) {
  std::vector<StageTime> stages(static_cast<size_t>(plan.pipeline.stages));
  std::vector<int64_t> counts(stages.size());
  for (const auto& rank : plan.ranks) {
    const auto t = time_of_rank(options, plan, rank, m);
    const auto s = static_cast<size_t>(rank.place[MeshDim::kPipeline]);
    auto& stage = stages[s];
    stage.recomputed += t.flop.recomputed;
    if (counts[s]++ > 0 && t.busy() <= stage.time.busy()) continue;
    stage.rank = rank.rank;
    stage.time = t;
  }
  for (size_t s = 0; s < stages.size(); ++s) {
    require(counts[s] > 0, "cost model: no rank of stage ", s, " was planned");
    stages[s].recomputed /= static_cast<double>(counts[s]);
  }
  return stages;
}

/// What each virtual stage's slots take: what is no product goes with the products.
std::vector<SlotTimes> slot_times(const RunPlan& plan, const std::vector<StageTime>& stages) {
  const auto& shape = plan.pipeline;
  const double messages =
      std::max<double>(1, 2 * static_cast<double>(plan.micro_batches * shape.chunks));
  std::vector<SlotTimes> times(static_cast<size_t>(shape.virtual_stages()));
  for (size_t s = 0; s < stages.size(); ++s) {
    const auto& t = stages[s].time;
    const double stretch = t.compute() > 0 ? t.busy() / t.compute() : 1;
    for (size_t c = 0; c < t.chunks.size(); ++c) {
      const auto& own = t.chunks[c];
      times[c * stages.size() + s] = {.forward = own.forward * stretch,
                                      .backward_input = own.backward_input * stretch,
                                      .backward_weight = own.backward_weight * stretch,
                                      .transfer = t.pipeline / messages};
    }
  }
  return times;
}

SlotTimes sum_of(const std::vector<SlotTimes>& times) {
  SlotTimes sum{.forward = 0, .backward_input = 0, .backward_weight = 0};
  for (const auto& t : times) {
    sum.forward += t.forward;
    sum.backward_input += t.backward_input;
    sum.backward_weight += t.backward_weight;
  }
  return sum;
}

/// Of the exchanges of gradients and sharded weights, what compute hides: gradients are reduced in
/// every backward where they are sharded, else in the last; sharded parameters are gathered ahead
/// of every layer, updated weights when all is computed.
double hidden_gradients(const RunOptions& options, const RunPlan& plan, const RankTime& t) {
  const auto& p = options.parallel;
  if (!p.overlap) return 0;
  const double backward =
      p.zero >= 2 ? t.backward : t.backward / static_cast<double>(plan.micro_batches);
  const double hidden = std::min(t.gradients, 0.8 * backward);
  if (p.zero < 3 || p.zero_prefetch == 0) return hidden;
  return std::min(hidden + t.weights, std::max(hidden, 0.8 * t.compute()));
}

}  // namespace

StepTime predict_step(const RunOptions& options, const RunPlan& plan, const Machine& m) {
  const auto stages = slowest_of_stages(options, plan, m);
  const auto& slowest =
      *std::max_element(stages.begin(), stages.end(),
                        [](const auto& a, const auto& b) { return a.time.busy() < b.time.busy(); });
  const auto& t = slowest.time;
  StepTime step{.compute = t.compute(),
                .attention = t.attention,
                .memory = t.memory,
                .launches = t.launches,
                .layers = t.layers.exposed() + t.ring.exposed(),
                .offload = t.offload.exposed(),
                .slowest_rank = slowest.rank};
  for (const auto& rank : plan.ranks) {
    for (const auto& [key, traffic] : rank.traffic) {
      auto& most = step.exchanges[key.first + " " + key.second];
      most = std::max(most, exchange_seconds(key.second, traffic, m));
    }
  }
  double makespan = t.busy();
  if (plan.pipeline.stages > 1) {
    const auto times = slot_times(plan, stages);
    const auto simulated = simulate(plan.pipeline, times);
    makespan = simulated.makespan;
    step.bubble_share = simulated.bubble;
    step.bubble_formula = bubble_formula(plan.pipeline, sum_of(times));
  }
  step.bubble = makespan - t.busy();
  double recomputed = 0;
  for (const auto& stage : stages) {
    const auto& own = stage.time;
    const double hidden = hidden_gradients(options, plan, own);
    step.gradients = std::max(step.gradients, own.gradients + own.weights - hidden);
    step.hidden =
        std::max(step.hidden, hidden + own.layers.hidden + own.ring.hidden + own.offload.hidden);
    step.optimizer = std::max(step.optimizer, own.update());
    recomputed += stage.recomputed;
  }
  step.step = makespan + step.gradients + step.optimizer;
  const double decoding = plan.step_pictures * m.picture_s /
                          static_cast<double>(plan.data_ranks() * options.data.workers);
  step.data = std::max(0.0, decoding - step.step);
  step.step += step.data;

  const auto processes = static_cast<double>(plan.processes);
  const double stage_ranks = processes / static_cast<double>(stages.size());
  const double peak = step.step * m.peak_flop * processes;
  step.mfu = plan.step_flop / peak;
  step.hfu = (plan.step_flop + recomputed * stage_ranks) / peak;
  step.tokens_per_second = plan.step_tokens / step.step;
  return step;
}

}  // namespace triptych

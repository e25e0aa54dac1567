#include "plan/cost_model.h"

#include <algorithm>
#include <cmath>

#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

/// What is exchanged when, by how it can be hidden.
enum class Exchange { kLayers, kRing, kPipeline, kGradients, kWeights };

Exchange kind_of(const std::string& group, const std::string& operation, bool ring) {
  if (group == "shards" && operation == "all_gather") return Exchange::kWeights;
  if (operation == "send" || operation == "receive") return Exchange::kPipeline;
  if (operation == "all_to_all")
    return ring && (group == "ring" || group == "context") ? Exchange::kRing : Exchange::kLayers;
  if (group == "pictures") return Exchange::kLayers;
  return group == "tensor" ? Exchange::kLayers : Exchange::kGradients;
}

double seconds_of(const std::string& operation, const Traffic& traffic, const Machine& m) {
  const bool in_host = traffic.first / m.devices_per_host == traffic.last / m.devices_per_host;
  const double bandwidth = in_host ? m.link_bandwidth : m.network_bandwidth;
  const double latency = in_host ? m.link_latency : m.network_latency;
  // Trees for small all-reduces and the like: hops grow with the logarithm.
  const double hops = operation == "send" || operation == "receive"
                          ? 1
                          : std::max(1.0, std::log2(static_cast<double>(traffic.ranks)));
  if (operation == "receive") return 0;
  return sent_bytes(operation, traffic) / bandwidth +
         static_cast<double>(traffic.calls) * hops * latency;
}

/// Time of a rank's step by what it is spent on.
struct RankTime {
  double flop = 0;  ///< time of the products
  double memory = 0, launches = 0, layers = 0, ring = 0, pipeline = 0, optimizer = 0;
  double gradients = 0, weights = 0;
  double forward = 0, backward = 0;  ///< products of all micro-batches
  /// Forward, input gradients, weight gradients of each chunk: shares of `flop`.
  std::vector<SlotTimes> chunks;
};

RankTime time_of(const RankPlan& rank, const RunPlan& plan, const Machine& m, bool ring) {
  RankTime t;
  const auto micro_batches = static_cast<double>(plan.micro_batches);
  for (const auto& work : rank.chunks) {
    const double rate = m.peak_flop * m.efficiency;
    t.chunks.push_back({.forward = work.forward / rate,
                        .backward_input = (work.backward_input + work.recomputed) / rate,
                        .backward_weight = work.backward_weight / rate});
    t.forward += micro_batches * t.chunks.back().forward;
    t.backward += micro_batches * t.chunks.back().of(SlotKind::kBackward);
  }
  t.flop = t.forward + t.backward;
  t.memory = 3 * static_cast<double>(rank.made_bytes) / (m.memory_bandwidth * m.memory_efficiency);
  t.launches =
      std::max(0.0, static_cast<double>(rank.made_tensors) * m.launch_s - t.flop - t.memory);
  for (const auto& [key, traffic] : rank.traffic) {
    const double seconds = seconds_of(key.second, traffic, m);
    switch (kind_of(key.first, key.second, ring)) {
      case Exchange::kLayers:
        t.layers += seconds;
        break;
      case Exchange::kRing:
        t.ring += seconds;
        break;
      case Exchange::kPipeline:
        t.pipeline += seconds;
        break;
      case Exchange::kGradients:
        t.gradients += seconds;
        break;
      case Exchange::kWeights:
        t.weights += seconds;
        break;
    }
  }
  const double kept = static_cast<double>(rank.memory.of(MetaMemoryKind::kOptimizer)) * 2;
  t.optimizer = kept * 1.5 / (m.memory_bandwidth * m.memory_efficiency);
  return t;
}

}  // namespace

StepTime predict_step(const RunOptions& options, const RunPlan& plan, const Machine& m) {
  const bool ring = options.parallel.context_algorithm != ContextAlgorithm::kUlysses;
  const auto shape = plan.pipeline;
  const auto micro_batches = static_cast<double>(plan.micro_batches);
  // The slowest rank of every stage.
  std::vector<RankTime> stages(static_cast<size_t>(shape.stages));
  const auto busy = [](const RankTime& t) {
    return t.flop + t.memory + t.launches + t.layers + t.ring;
  };
  StepTime step;
  for (const auto& rank : plan.ranks) {
    const auto t = time_of(rank, plan, m, ring);
    auto& stage = stages[static_cast<size_t>(rank.place[MeshDim::kPipeline])];
    if (stage.chunks.empty() || busy(t) > busy(stage)) stage = t;
    for (const auto& [key, traffic] : rank.traffic) {
      auto& slowest = step.exchanges[key.first + " " + key.second];
      slowest = std::max(slowest, seconds_of(key.second, traffic, m));
    }
  }
  // The ring's exchanges run beside attention's products; a third of a step's are taken for those.
  std::vector<SlotTimes> times(static_cast<size_t>(shape.virtual_stages()));
  for (size_t s = 0; s < stages.size(); ++s) {
    auto& t = stages[s];
    require(!t.chunks.empty(), "cost model: no rank of stage ", s, " was planned");
    const double exposed_ring = std::max(0.0, t.ring - t.flop / 3);
    step.hidden = std::max(step.hidden, t.ring - exposed_ring);
    t.layers += exposed_ring;
    t.ring = 0;
    const double messages = std::max(1.0, 2 * micro_batches * static_cast<double>(shape.chunks));
    for (size_t c = 0; c < t.chunks.size(); ++c) {
      const auto& own = t.chunks[c];
      const double share = t.flop > 0 ? 1 / t.flop : 0;
      // What is no product goes with the products.
      const double stretch = 1 + (t.memory + t.launches + t.layers) * share;
      times[c * stages.size() + s] = {.forward = own.forward * stretch,
                                      .backward_input = own.backward_input * stretch,
                                      .backward_weight = own.backward_weight * stretch,
                                      .transfer = t.pipeline / messages};
    }
  }
  const auto& slowest =
      *std::max_element(stages.begin(), stages.end(),
                        [&](const auto& a, const auto& b) { return busy(a) < busy(b); });
  double makespan = busy(slowest);
  if (shape.stages > 1) {
    const auto simulated = simulate(shape, times);
    makespan = simulated.makespan;
    step.bubble_share = simulated.bubble;
    double F = 0, I = 0, W = 0;
    for (const auto& t : times) {
      F += t.forward;
      I += t.backward_input;
      W += t.backward_weight;
    }
    step.bubble_formula =
        bubble_formula(shape, {.forward = F, .backward_input = I, .backward_weight = W});
  }
  step.compute = slowest.flop;
  step.memory = slowest.memory;
  step.launches = slowest.launches;
  step.layers = slowest.layers;
  step.bubble = makespan - busy(slowest);
  const auto& p = options.parallel;
  for (const auto& t : stages) {
    // Sharded gradients are reduced in every backward, others in the last; sharded parameters are
    // gathered ahead of every layer, updated weights when all is computed.
    const double backward = p.zero >= 2 ? t.backward : t.backward / micro_batches;
    double hidden = p.overlap ? std::min(t.gradients, 0.8 * backward) : 0;
    if (p.zero == 3 && p.overlap && p.zero_prefetch > 0)
      hidden = std::min(hidden + t.weights, std::max(hidden, 0.8 * t.flop));
    step.gradients = std::max(step.gradients, t.gradients + t.weights - hidden);
    step.hidden = std::max(step.hidden, hidden);
    step.optimizer = std::max(step.optimizer, t.optimizer);
  }
  step.step = makespan + step.gradients + step.optimizer;
  step.mfu = plan.step_flop / (step.step * m.peak_flop * static_cast<double>(plan.processes));
  step.tokens_per_second = plan.step_tokens / step.step;
  return step;
}

}  // namespace triptych

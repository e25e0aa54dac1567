#include "plan/rank_time.h"

#include <algorithm>
#include <cmath>

namespace triptych {

namespace {

/// What is exchanged when, by how it can be hidden.
enum class Exchange { kLayers, kRing, kPipeline, kGradients, kWeights };

/// @param pure_ring  the whole context axis is a ring: its group has either name
Exchange kind_of(const std::string& group, const std::string& operation, bool pure_ring) {
  if (group == "shards" && operation == "all_gather") return Exchange::kWeights;
  if (operation == "send" || operation == "receive") return Exchange::kPipeline;
  if (operation == "all_to_all") {
    const bool ring = group == "ring" || (pure_ring && group == "context");
    return ring ? Exchange::kRing : Exchange::kLayers;
  }
  if (group == "pictures") return Exchange::kLayers;
  return group == "tensor" ? Exchange::kLayers : Exchange::kGradients;
}

/// Of exchanges inside layers, what runs beside weight gradients. Those of forward, and of a
/// forward that is computed again, are waited for; of backward's, three tenths stay exposed
/// (docs/spec/parallelism.md, 11.4), and no more is hidden than there are products for.
double hidden_in_layers(const RunOptions& options, const RankTime& t, double again) {
  constexpr double kExposed = 0.3;
  const auto& p = options.parallel;
  if (!p.overlap || p.schedule == PipelineOrder::kZeroBubbleH1) return 0;
  const double of_backward = t.layers.total / (2 + again);
  return std::min((1 - kExposed) * of_backward, t.weight_gradients);
}

void add_compute(RankTime& t, const ChunkWork& work, double micro_batches, const Machine& m) {
  const double product = 1 / (m.peak_flop * m.matmul_efficiency);
  const double attention = 1 / (m.peak_flop * m.attention_forward_efficiency);
  const double attention_back = 1 / (m.peak_flop * m.attention_backward_efficiency);
  const SlotTimes slot{.forward = work.forward * product + work.attention_forward * attention,
                       .backward_input = (work.backward_input + work.recomputed) * product +
                                         work.attention_recomputed * attention +
                                         work.attention_backward * attention_back,
                       .backward_weight = work.backward_weight * product};
  t.chunks.push_back(slot);
  t.forward += micro_batches * slot.forward;
  t.backward += micro_batches * slot.of(SlotKind::kBackward);
  t.weight_gradients += micro_batches * slot.backward_weight;

  auto& flop = t.flop;
  flop.products +=
      micro_batches * (work.forward + work.backward_input + work.backward_weight + work.recomputed);
  flop.attention_forward += micro_batches * (work.attention_forward + work.attention_recomputed);
  flop.attention_backward += micro_batches * work.attention_backward;
  flop.recomputed += micro_batches * (work.recomputed + work.attention_recomputed);
}

}  // namespace

double exchange_seconds(const std::string& operation, const Traffic& traffic, const Machine& m) {
  if (operation == "receive") return 0;
  const double bytes = sent_bytes(operation, traffic);
  const auto calls = static_cast<double>(traffic.calls);
  const bool in_host = traffic.first / m.devices_per_host == traffic.last / m.devices_per_host;
  const auto measured = m.exchanges.find(operation);
  if (in_host && measured != m.exchanges.end())
    return bytes / measured->second.bandwidth + calls * measured->second.latency;
  const double bandwidth = in_host ? m.link_bandwidth : m.network_bandwidth;
  const double latency = in_host ? m.link_latency : m.network_latency;
  // Trees for small all-reduces and the like: hops grow with the logarithm.
  const double hops =
      operation == "send" ? 1 : std::max(1.0, std::log2(static_cast<double>(traffic.ranks)));
  return bytes / bandwidth + calls * hops * latency;
}

RankTime time_of_rank(const RunOptions& options, const RunPlan& plan, const RankPlan& rank,
                      const Machine& m) {
  RankTime t;
  const auto micro_batches = static_cast<double>(plan.micro_batches);
  double forward_flop = 0;
  for (const auto& work : rank.chunks) {
    add_compute(t, work, micro_batches, m);
    forward_flop += micro_batches * (work.forward + work.attention_forward);
  }
  t.products = t.flop.products / (m.peak_flop * m.matmul_efficiency);
  t.attention = t.forward + t.backward - t.products;

  const double memory_rate = m.memory_bandwidth * m.memory_efficiency;
  t.memory = 3 * static_cast<double>(rank.made_bytes) / memory_rate;
  t.launches = static_cast<double>(rank.made_tensors) * m.launch_s;
  if (m.launches_ahead) t.launches = std::max(0.0, t.launches - t.compute() - t.memory);

  const int64_t ring_size = plan.mesh.context / std::max<int64_t>(1, plan.mesh.ulysses);
  const bool pure_ring = ring_size > 1 && plan.mesh.ulysses == 1;
  for (const auto& [key, traffic] : rank.traffic) {
    const double seconds = exchange_seconds(key.second, traffic, m);
    switch (kind_of(key.first, key.second, pure_ring)) {
      case Exchange::kLayers:
        t.layers.total += seconds;
        break;
      case Exchange::kRing:
        t.ring.total += seconds;
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
  t.layers.hidden =
      hidden_in_layers(options, t, forward_flop > 0 ? t.flop.recomputed / forward_flop : 0);
  // A hop runs beside the attention to the part at hand; the last part has no hop beside it.
  const auto parts = static_cast<double>(ring_size);
  t.ring.hidden = std::min(t.ring.total, t.attention * (parts - 1) / parts);

  if (m.host_bandwidth > 0) {
    // Out beside forward, back beside backward.
    const double one_way = static_cast<double>(rank.offloaded_bytes) / m.host_bandwidth;
    t.offload = {.total = 2 * one_way,
                 .hidden = std::min(one_way, t.forward) + std::min(one_way, t.backward)};
    t.host_states = 2 * static_cast<double>(rank.host_state_bytes) / m.host_bandwidth;
  }
  // States twice, weights twice, gradients: about three times the states.
  t.states = 3 * static_cast<double>(rank.state_bytes) / memory_rate;
  return t;
}

}  // namespace triptych

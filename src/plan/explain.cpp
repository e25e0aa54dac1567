// The terms of a prediction, each with its formula and numbers.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "base/progress.h"
#include "plan/cost_model.h"
#include "plan/rank_time.h"

namespace triptych {

namespace {

std::string flop_text(double flop) { return short_count(flop) + " flop"; }

std::string rate_text(const Machine& m, double efficiency) {
  return fmt::format("({} flop/s x {:.2f})", short_count(m.peak_flop), efficiency);
}

std::string memory_rate(const Machine& m) {
  return fmt::format("({}/s x {:.2f})", bytes_text(m.memory_bandwidth), m.memory_efficiency);
}

std::string bytes_of(int64_t bytes) { return bytes_text(static_cast<double>(bytes)); }

/// How one row of a rank's table of exchanges becomes seconds.
std::string exchange_text(const std::string& operation, const Traffic& traffic, const Machine& m) {
  const bool in_host = traffic.first / m.devices_per_host == traffic.last / m.devices_per_host;
  const auto sent = bytes_text(sent_bytes(operation, traffic));
  const auto measured = m.exchanges.find(operation);
  if (in_host && measured != m.exchanges.end()) {
    return fmt::format("{} sent / {}/s + {} calls x {:.3g} us, as measured", sent,
                       bytes_text(measured->second.bandwidth), traffic.calls,
                       1e6 * measured->second.latency);
  }
  const double hops =
      operation == "send" ? 1 : std::max(1.0, std::log2(static_cast<double>(traffic.ranks)));
  return fmt::format("{} sent / {}/s + {} calls x {:.3g} hops x {:.3g} us, {}", sent,
                     bytes_text(in_host ? m.link_bandwidth : m.network_bandwidth), traffic.calls,
                     hops, 1e6 * (in_host ? m.link_latency : m.network_latency),
                     in_host ? "within a host" : "between hosts");
}

const RankPlan& rank_of(const RunPlan& plan, int64_t number) {
  const auto it = std::find_if(plan.ranks.begin(), plan.ranks.end(),
                               [&](const auto& rank) { return rank.rank == number; });
  require(it != plan.ranks.end(), "explain: rank ", number, " was not planned; this is a bug");
  return *it;
}

}  // namespace

std::vector<CostTerm> explain_step(const RunOptions& options, const RunPlan& plan, const Machine& m,
                                   const StepTime& step) {
  const auto& rank = rank_of(plan, step.slowest_rank);
  const auto t = time_of_rank(options, plan, rank, m);
  std::vector<CostTerm> terms;
  const auto add = [&](std::string name, double seconds, std::string how, bool in_step = true) {
    terms.push_back({std::move(name), seconds, std::move(how), in_step});
  };
  add("matrix products", t.products,
      fmt::format("{} / {}", flop_text(t.flop.products), rate_text(m, m.matmul_efficiency)));
  add("attention", t.attention,
      fmt::format("{} / {} forward, {} / {} backward", flop_text(t.flop.attention_forward),
                  rate_text(m, m.attention_forward_efficiency),
                  flop_text(t.flop.attention_backward),
                  rate_text(m, m.attention_backward_efficiency)));
  if (t.flop.recomputed > 0)
    add("computed again, in the two above",
        t.compute() * t.flop.recomputed /
            (t.flop.products + t.flop.attention_forward + t.flop.attention_backward),
        flop_text(t.flop.recomputed), false);
  add("memory traffic of operators", t.memory,
      fmt::format("3 x {} made / {}", bytes_of(rank.made_bytes), memory_rate(m)));
  add("kernel launches", t.launches,
      m.launches_ahead ? fmt::format("max(0, {} x {:.3g} us - the terms above)", rank.made_tensors,
                                     1e6 * m.launch_s)
                       : fmt::format("{} x {:.3g} us", rank.made_tensors, 1e6 * m.launch_s));
  if (t.layers.total > 0)
    add("exchanges inside layers", t.layers.exposed(),
        fmt::format("{:.3g} s - {:.3g} s beside weight gradients", t.layers.total,
                    t.layers.hidden));
  if (t.ring.total > 0)
    add("exchanges of the ring", t.ring.exposed(),
        fmt::format("max(0, {:.3g} s - {:.3g} s of attention in which a part is on its way)",
                    t.ring.total,
                    t.attention * (1 - static_cast<double>(plan.mesh.ulysses) /
                                           static_cast<double>(plan.mesh.context))));
  if (t.offload.total > 0)
    add("activations to the host and back", t.offload.exposed(),
        fmt::format("2 x {} / {}/s - {:.3g} s beside forward and backward",
                    bytes_of(rank.offloaded_bytes), bytes_text(m.host_bandwidth),
                    t.offload.hidden));
  if (plan.pipeline.stages > 1)
    add("pipeline bubble, uneven stages", step.bubble,
        fmt::format("simulated: {} stages, {} chunks, {} micro-batches; {:.1f} % of the work, "
                    "{:.1f} % if all stages were alike",
                    plan.pipeline.stages, plan.pipeline.chunks, plan.micro_batches,
                    100 * step.bubble_share, 100 * step.bubble_formula));
  if (t.gradients + t.weights > 0)
    add("gradients and weights exchanged", step.gradients,
        fmt::format("{:.3g} s of gradients + {:.3g} s of weights, less what 0.8 x backward hides; "
                    "the stage with most",
                    t.gradients, t.weights));
  add("optimizer", step.optimizer,
      fmt::format("3 x {} of states / {}{}", bytes_of(rank.state_bytes), memory_rate(m),
                  t.host_states > 0
                      ? fmt::format(" + 2 x {} / {}/s to the host", bytes_of(rank.host_state_bytes),
                                    bytes_text(m.host_bandwidth))
                      : ""));
  add("waiting for data", step.data,
      fmt::format("max(0, {:.0f} pictures x {:.3g} ms / ({} data ranks x {} workers) - all above)",
                  plan.step_pictures, 1e3 * m.picture_s, plan.data_ranks(), options.data.workers));
  for (const auto& [key, traffic] : rank.traffic) {
    if (key.second == "receive") continue;
    add(key.first + " " + key.second, exchange_seconds(key.second, traffic, m),
        exchange_text(key.second, traffic, m), false);
  }
  return terms;
}

}  // namespace triptych

#include "plan/report.h"

#include <algorithm>

#include "base/format.h"
#include "base/progress.h"
#include "kernels/memory_report.h"

namespace triptych {

namespace {

constexpr auto kKindNames = option_names(MetaMemoryKind());

Json time_json(const StepTime& t, const Machine& machine) {
  Json exchanges = Json::object();
  for (const auto& [name, seconds] : t.exchanges) exchanges[name] = seconds;
  return {{"machine", machine.name},
          {"step_seconds", t.step},
          {"compute", t.compute},
          {"attention", t.attention},
          {"memory", t.memory},
          {"launches", t.launches},
          {"layer_exchanges", t.layers},
          {"offload", t.offload},
          {"bubble", t.bubble},
          {"gradient_exchanges", t.gradients},
          {"optimizer", t.optimizer},
          {"data", t.data},
          {"hidden_exchanges", t.hidden},
          {"bubble_share", t.bubble_share},
          {"bubble_formula", t.bubble_formula},
          {"mfu", t.mfu},
          {"hfu", t.hfu},
          {"slowest_rank", t.slowest_rank},
          {"tokens_per_second", t.tokens_per_second},
          {"exchanges", exchanges}};
}

/// "0-3", "0,2"
std::string ranks_text(const std::vector<int64_t>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", ranks[i]);
    if (end - i > 1) text += fmt::format("-{}", ranks[end - 1]);
    i = end;
  }
  return text;
}

std::string memory_table(const RunPlan& plan) {
  std::vector<std::pair<const RankPlan*, std::vector<int64_t>>> lines;
  for (const auto& r : plan.ranks) {
    const auto it = std::find_if(lines.begin(), lines.end(), [&](const auto& line) {
      return line.first->memory.bytes == r.memory.bytes && line.first->start_bytes == r.start_bytes;
    });
    if (it == lines.end()) {
      lines.emplace_back(&r, std::vector{r.rank});
    } else {
      it->second.push_back(r.rank);
    }
  }
  std::string text = fmt::format("{:<16}", "rank");
  for (const auto name : kKindNames) text += fmt::format("{:>13}", name);
  text += fmt::format("{:>13}{:>13}\n", "total", "start");
  for (const auto& [r, ranks] : lines) {
    text += fmt::format("{:<16}", ranks_text(ranks));
    for (const auto bytes : r->memory.bytes)
      text += fmt::format("{:>13}", bytes_text(static_cast<double>(bytes)));
    text += fmt::format("{:>13}{:>13}\n", bytes_text(static_cast<double>(r->total_bytes())),
                        bytes_text(static_cast<double>(r->start_bytes)));
  }
  return text;
}

std::string traffic_table(const RankPlan& rank) {
  if (rank.traffic.empty()) return "";
  auto text = fmt::format("\nexchanges of rank {} in a step\n{:<24}{:<16}{:>7}{:>9}{:>13}{:>13}\n",
                          rank.rank, "group", "operation", "ranks", "calls", "tensors", "sends");
  for (const auto& [key, traffic] : rank.traffic) {
    text +=
        fmt::format("{:<24}{:<16}{:>7}{:>9}{:>13}{:>13}\n", key.first, key.second, traffic.ranks,
                    traffic.calls, bytes_text(static_cast<double>(traffic.bytes)),
                    bytes_text(sent_bytes(key.second, traffic)));
  }
  return text;
}

std::string time_text(const StepTime& t, const Machine& m) {
  auto text = fmt::format(
      "\non {}: {:.3g} s a step, {} tokens/s, {:.1f} % of the peak of {} flop/s a device ({:.1f} % "
      "with what is computed again)\n",
      m.name, t.step, short_count(t.tokens_per_second), 100 * t.mfu, short_count(m.peak_flop),
      100 * t.hfu);
  const auto line = [&](const char* name, double seconds) {
    if (seconds > 0)
      text += fmt::format("  {:<34}{:>9.3g} s{:>7.1f} %\n", name, seconds, 100 * seconds / t.step);
  };
  line("products", t.compute - t.attention);
  line("attention", t.attention);
  line("memory traffic of operators", t.memory);
  line("kernel launches", t.launches);
  line("exchanges inside layers", t.layers);
  line("activations to the host and back", t.offload);
  line("pipeline bubble, uneven stages", t.bubble);
  line("gradients and weights exchanged", t.gradients);
  line("optimizer", t.optimizer);
  line("waiting for data", t.data);
  if (t.hidden > 0)
    text += fmt::format("  {:<34}{:>9.3g} s\n", "(hidden behind compute)", t.hidden);
  if (t.bubble_share > 0) {
    text += fmt::format("  bubble {:.1f} % of the work, {:.1f} % if all stages were alike\n",
                        100 * t.bubble_share, 100 * t.bubble_formula);
  }
  return text;
}

}  // namespace

std::string mesh_text(const MeshShape& mesh, int64_t processes) {
  std::string text;
  const auto add = [&](const char* name, int64_t size) {
    if (size > 1) text += fmt::format("{}{} {}", text.empty() ? "" : " x ", name, size);
  };
  add("tensor", mesh.tensor);
  add("context", mesh.context);
  add("pipeline", mesh.pipeline);
  add("data", processes / (mesh.tensor * mesh.context * mesh.pipeline));
  return text.empty() ? "one process" : text;
}

std::string fit_text(const RunPlan& plan, int64_t memory_bytes, double share) {
  const auto limit = static_cast<int64_t>(static_cast<double>(memory_bytes) * share);
  std::string text;
  for (const auto& rank : plan.ranks) {
    const int64_t bytes = rank.most_bytes();
    if (bytes <= limit) continue;
    text += fmt::format("rank {} does not fit: {}, {} more than {:.0f} % of {}\n", rank.rank,
                        bytes_text(static_cast<double>(bytes)),
                        bytes_text(static_cast<double>(bytes - limit)), 100 * share,
                        bytes_text(static_cast<double>(memory_bytes)));
  }
  return text;
}

std::string rank_memory_text(const RankPlan& rank, int64_t tokens) {
  auto text = fmt::format("  the plan of this rank, for rows of {} tokens:\n", tokens);
  for (size_t k = 0; k < kMetaMemoryKinds; ++k)
    text += fmt::format("    {:>11}  {}\n", memory_text(rank.memory.bytes[k]), kKindNames[k]);
  return text + fmt::format("    {:>11}  in all", memory_text(rank.total_bytes()));
}

std::string terms_text(const std::vector<CostTerm>& terms, const StepTime& time) {
  auto text = fmt::format(
      "\nterms of rank {}, the slowest; in brackets what is hidden or a part of another term\n",
      time.slowest_rank);
  for (const auto& term : terms) {
    const auto seconds = fmt::format("{:.3g} s", term.seconds);
    text += fmt::format("  {:<34}{:>12}  = {}\n", term.name,
                        term.in_step ? seconds : "(" + seconds + ")", term.how);
  }
  return text + fmt::format("  {:<34}{:>12}\n", "step", fmt::format("{:.3g} s", time.step));
}

Json terms_json(const std::vector<CostTerm>& terms) {
  Json json = Json::array();
  for (const auto& term : terms)
    json.push_back({{"name", term.name},
                    {"seconds", term.seconds},
                    {"in_step", term.in_step},
                    {"how", term.how}});
  return json;
}

Json plan_json(const RunPlan& plan, const StepTime* time, const Machine* machine) {
  Json ranks = Json::array();
  for (const auto& r : plan.ranks) {
    Json entry{{"rank", r.rank}};
    for (size_t k = 0; k < kMetaMemoryKinds; ++k)
      entry[std::string(kKindNames[k])] = r.memory.bytes[k];
    entry["total"] = r.total_bytes();
    entry["start"] = r.start_bytes;
    Json collectives = Json::array();
    for (const auto& [key, traffic] : r.traffic) {
      collectives.push_back({{"group", key.first},
                             {"operation", key.second},
                             {"ranks", traffic.ranks},
                             {"calls", traffic.calls},
                             {"bytes", traffic.bytes},
                             {"sent_bytes", sent_bytes(key.second, traffic)}});
    }
    entry["collectives"] = std::move(collectives);
    ranks.push_back(std::move(entry));
  }
  Json json{
      {"model", plan.model},
      {"parameters", plan.parameters},
      {"trained", plan.trained},
      {"processes", plan.processes},
      {"mesh",
       {{"tensor", plan.mesh.tensor},
        {"context", plan.mesh.context},
        {"pipeline", plan.mesh.pipeline},
        {"data", plan.processes / (plan.mesh.tensor * plan.mesh.context * plan.mesh.pipeline)}}},
      {"micro_batches", plan.micro_batches},
      {"ranks", ranks}};
  if (plan.data) json["data"] = data_json(*plan.data);
  if (time != nullptr) json["time"] = time_json(*time, *machine);
  return json;
}

std::string plan_text(const RunPlan& plan, const StepTime* time, const Machine* machine) {
  auto text = fmt::format(
      "{}: {} parameters, {} trained; {} process{} = {}; {} micro-batches of {} tokens a step\n\n",
      plan.model, short_count(static_cast<double>(plan.parameters)),
      short_count(static_cast<double>(plan.trained)), plan.processes,
      plan.processes == 1 ? "" : "es", mesh_text(plan.mesh, plan.processes), plan.micro_batches,
      static_cast<int64_t>(plan.micro_batch_tokens));
  if (plan.data) text.insert(text.size() - 1, data_text(*plan.data));
  text += memory_table(plan) + traffic_table(plan.ranks.front());
  if (time != nullptr) text += time_text(*time, *machine);
  return text;
}

}  // namespace triptych

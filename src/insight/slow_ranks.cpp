#include "insight/slow_ranks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/format.h"
#include "insight/communication.h"
#include "insight/finding_places.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

std::string milliseconds(double ns) { return fmt::format("{:.2f} ms", ns / 1e6); }

/// Probability of at least `hits` out of `trials` where one has probability `p`.
double chance_of(int64_t hits, int64_t trials, double p) {
  double tail = 0, term = std::pow(1 - p, static_cast<double>(trials));
  for (int64_t k = 0; k <= trials; ++k) {
    if (k >= hits) tail += term;
    term *= static_cast<double>(trials - k) / static_cast<double>(k + 1) * p / (1 - p);
  }
  return tail;
}
/// What happens more often by chance than once in 16 times is no evidence.
constexpr double kMostChance = 1.0 / 16;

/// Stage of a pipeline that a rank says it is; -1: it does not.
int64_t stage_of(const Run& run, int64_t rank, int64_t span) {
  const int file = run.file_of(rank, span);
  if (file < 0) return -1;
  const auto& metadata = run.files()[static_cast<size_t>(file)].trace.metadata();
  const auto at = Json::json_pointer("/mm/coordinates/pipeline");
  if (!metadata.is_object() || !metadata.contains(at)) return -1;
  return metadata[at].is_number_integer() ? metadata[at].get<int64_t>() : -1;
}

class SlowRanks {
 public:
  SlowRanks(const Run& run, const CommCalls& calls, const PerRank& steps, int64_t span,
            double step_ns)
      : run_(run), calls_(calls), steps_(steps), span_(span), step_ns_(step_ns) {
    for (const auto& r : rank_comm(calls_, "")) comm_[r.rank] = r;
  }

  std::vector<Finding> find() {
    for (const auto& members : peers()) {
      std::vector<double> compute;
      for (const auto rank : members)
        compute.push_back(steps_.median_of(rank, &StepTimes::compute));
      for (size_t i = 0; i < members.size(); ++i)
        if (!reported_.contains(members[i])) look_at(members[i], compute[i], members, compute);
    }
    return std::move(out_);
  }

 private:
  /// Looked up once a rank: there are as many parts of calls as events.
  int64_t stage(int64_t rank) {
    const auto [at, added] = stages_.try_emplace(rank);
    if (added) at->second = stage_of(run_, rank, span_);
    return at->second;
  }

  /// Sets of ranks that do the same work: the members of a collective group of two and more, of one
  /// stage. A pipeline's stages differ by design and meet in messages only.
  std::vector<std::vector<int64_t>> peers() {
    const bool messages = std::ranges::any_of(calls_.calls, &CommCall::message);
    std::set<std::vector<int64_t>> sets;
    for (const auto& call : calls_.calls) {
      if (call.message) continue;
      std::map<int64_t, std::vector<int64_t>> stages;
      for (const auto& part : call.parts) stages[stage(part.rank)].push_back(part.rank);
      for (auto& [stage, members] : stages)
        if (members.size() >= 2) sets.insert(std::move(members));
    }
    std::vector<std::vector<int64_t>> out;
    // Where no stages are told: a group that contains others compares unlike ones.
    for (const auto& members : sets) {
      const bool widest_of_pipeline =
          messages && std::ranges::any_of(sets, [&](const auto& other) {
            return other.size() < members.size() && std::ranges::includes(members, other);
          });
      if (!widest_of_pipeline) out.push_back(members);
    }
    if (!out.empty() || messages) return out;
    std::map<int64_t, std::vector<int64_t>> stages;
    for (const auto rank : steps_.ranks()) stages[stage(rank)].push_back(rank);
    for (auto& [stage, members] : stages)
      if (members.size() >= 2) out.push_back(std::move(members));
    return out;
  }

  void look_at(int64_t rank, double own, const std::vector<int64_t>& members,
               const std::vector<double>& compute) {
    const double usual = members.size() == 2 ? std::ranges::min(compute) : median(compute);
    const double excess = usual > 0 ? own / usual - 1 : 0;
    if (excess < least_excess(rank)) return;
    const double z = robust_z(own, compute);
    if (members.size() > 3 && z > 0 && z < 3.5) return;
    const auto [slowest, steps] = slowest_steps(rank, members);
    // Of two ranks one is the slower in both of two steps half the time.
    if (static_cast<double>(slowest) < 0.75 * static_cast<double>(steps) ||
        chance_of(slowest, steps, 1.0 / static_cast<double>(members.size())) > kMostChance)
      return;
    double others_wait = 0;
    for (const auto other : members)
      if (other != rank && comm_.contains(other))
        others_wait = std::max(others_wait, comm_[other].wait_ns);
    const auto at = comm_.find(rank);
    const bool late =
        at == comm_.end() || (at->second.wait_ns < 0.5 * others_wait && at->second.late_ns >= 0);
    if (!late) return;
    reported_.insert(rank);
    Finding f;
    f.kind = "slow_rank";
    f.rank = rank;
    f.severity = (own - usual) / step_ns_;
    f.page = "communication";
    f.slice =
        place_of_step(run_, **std::ranges::max_element(steps_.at(rank), {}, &StepTimes::compute));
    f.evidence = {{"compute_ns", own},
                  {"peers_compute_ns", usual},
                  {"excess", excess},
                  {"z", z},
                  {"slowest_share", static_cast<double>(slowest) / static_cast<double>(steps)}};
    if (at != comm_.end()) {
      f.evidence["wait_ns"] = at->second.wait_ns;
      f.evidence["others_wait_ns"] = others_wait;
      f.evidence["late_ns"] =
          at->second.late_ns / static_cast<double>(std::max<int64_t>(1, at->second.calls));
    }
    f.words = fmt::format(
        "rank {} computes {} a step, {:.0f} % more than its peers ({}), and the "
        "others wait for it; {}",
        rank, milliseconds(own), excess * 100, milliseconds(usual),
        cause(rank, members, own - usual, f.evidence));
    out_.push_back(std::move(f));
  }

  /// What the difference comes from, as far as it is known.
  std::string cause(int64_t rank, const std::vector<int64_t>& members, double excess_ns,
                    Json& evidence) const {
    const double own = steps_.median_of(rank, &StepTimes::core_wait);
    std::vector<double> others;
    for (const auto member : members)
      if (member != rank) others.push_back(steps_.median_of(member, &StepTimes::core_wait));
    if (own >= 0) {
      evidence["core_wait_ns"] = own;
      evidence["shares_core"] = own - std::max(0.0, median(others)) >= 0.5 * excess_ns;
      if (evidence["shares_core"])
        return fmt::format("of that it waits {} for a core: something else runs there",
                           milliseconds(own));
    }
    return "look at its clocks, heat, or at what else runs there";
  }

  /// Devices repeat their times within a few per cent; processes that share a CPU's caches do not.
  double least_excess(int64_t rank) const {
    const int file = run_.file_of(rank, span_);
    const bool device =
        file >= 0 && run_.files()[static_cast<size_t>(file)].trace.has_device_work();
    return device ? 0.05 : 0.1;
  }

  /// In how many steps it computes longest, of how many.
  std::pair<int64_t, int64_t> slowest_steps(int64_t rank,
                                            const std::vector<int64_t>& members) const {
    std::map<int64_t, std::pair<int64_t, int64_t>> slowest;  // step -> (compute, rank)
    for (const auto member : members)
      for (const auto* s : steps_.at(member)) {
        auto& [compute, of] = slowest[s->step];
        if (s->compute > compute) compute = s->compute, of = member;
      }
    int64_t count = 0;
    for (const auto& [step, who] : slowest) count += who.second == rank;
    return {count, static_cast<int64_t>(slowest.size())};
  }

  const Run& run_;
  const CommCalls& calls_;
  const PerRank& steps_;
  int64_t span_;
  double step_ns_;
  std::map<int64_t, int64_t> stages_;
  std::map<int64_t, RankComm> comm_;
  std::set<int64_t> reported_;
  std::vector<Finding> out_;
};

}  // namespace

std::vector<Finding> slow_ranks(const Run& run, const CommCalls& calls, const PerRank& steps,
                                int64_t span, double step_ns) {
  return SlowRanks(run, calls, steps, span, step_ns).find();
}

}  // namespace triptych::insight

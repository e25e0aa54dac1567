#include "insight/findings.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/format.h"
#include "insight/alignment.h"
#include "insight/communication.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

std::string milliseconds(double ns) { return fmt::format("{:.2f} ms", ns / 1e6); }
std::string percent(double share) { return fmt::format("{:.0f} %", share * 100); }
std::string rate(double bytes_per_s) {
  return bytes_per_s >= 1e9 ? fmt::format("{:.2f} GB/s", bytes_per_s / 1e9)
                            : fmt::format("{:.1f} MB/s", bytes_per_s / 1e6);
}

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

/// Median over a rank's steps of one of the sums.
class PerRank {
 public:
  explicit PerRank(const std::vector<StepTimes>& steps) {
    for (const auto& s : steps) by_rank_[s.rank].push_back(&s);
  }
  template <class Member>
  double median_of(int64_t rank, Member member) const {
    std::vector<double> values;
    for (const auto* s : at(rank)) values.push_back(static_cast<double>(s->*member));
    return median(std::move(values));
  }
  const std::vector<const StepTimes*>& at(int64_t rank) const {
    static const std::vector<const StepTimes*> kEmpty;
    const auto found = by_rank_.find(rank);
    return found == by_rank_.end() ? kEmpty : found->second;
  }
  std::vector<int64_t> ranks() const {
    std::vector<int64_t> out;
    for (const auto& [rank, list] : by_rank_) out.push_back(rank);
    return out;
  }

 private:
  std::map<int64_t, std::vector<const StepTimes*>> by_rank_;
};

class Finder {
 public:
  Finder(const Run& run, const CommCalls& calls, const std::vector<StepTimes>& steps, int64_t span)
      : run_(run), calls_(calls), steps_(steps), per_rank_(steps), span_(span) {}

  std::vector<Finding> run() {
    std::vector<double> totals;
    for (const auto& s : steps_)
      if (s.step >= 0) totals.push_back(static_cast<double>(s.total));
    step_ns_ = median(totals);
    clocks();
    if (step_ns_ > 0) {
      loaders();
      slow_ranks();
      exposed();
      outliers();
    }
    links();
    memory_growth();
    damage();
    std::ranges::stable_sort(out_, std::ranges::greater(), &Finding::severity);
    return std::move(out_);
  }

 private:
  /// Sets of ranks that do the same work: the members of a collective group of two and more. A
  /// pipeline's stages differ by design and meet in messages only.
  std::vector<std::vector<int64_t>> peers() const {
    std::map<std::vector<int64_t>, bool> sets;
    const auto profiled = per_rank_.ranks();
    for (const auto& call : calls_.calls) {
      if (call.message) continue;
      std::vector<int64_t> members;
      for (const auto& part : call.parts) members.push_back(part.rank);
      if (members.size() >= 2) sets[members] = true;
    }
    std::vector<std::vector<int64_t>> out;
    // A group that contains others (the whole world of a pipeline run) compares unlike stages.
    for (const auto& set : sets) {
      const auto& members = set.first;
      const bool widest_of_pipeline =
          has_messages() && std::ranges::any_of(sets, [&](const auto& other) {
            return other.first.size() < members.size() &&
                   std::ranges::includes(members, other.first);
          });
      if (!widest_of_pipeline) out.push_back(members);
    }
    if (out.empty() && !has_messages() && profiled.size() >= 2) out.push_back(profiled);
    return out;
  }
  bool has_messages() const { return std::ranges::any_of(calls_.calls, &CommCall::message); }

  void clocks() {
    std::set<int64_t> reported;
    std::map<int64_t, std::vector<std::pair<int64_t, std::string>>> by_offset;
    for (const int file : run_.files_of_span(span_)) {
      const auto& f = run_.files()[static_cast<size_t>(file)];
      if (f.offset_ns != 0) by_offset[f.offset_ns].push_back({f.rank, host_of(f.trace)});
    }
    for (const auto& [offset, ranks] : by_offset) {
      constexpr int64_t kLeast = 200000;
      if (std::abs(offset) < kLeast) continue;
      std::string names;
      for (const auto& [rank, host] : ranks)
        names += (names.empty() ? "" : ", ") + std::to_string(rank);
      Finding f;
      f.kind = "clock_skew";
      f.rank = ranks.front().first;
      const auto& host = ranks.front().second;
      f.words = fmt::format(
          "the clock of {}rank{} {} is {} {} that of the other ranks; times are shown corrected",
          host.empty() ? "" : "host " + host + ", ", ranks.size() > 1 ? "s" : "", names,
          milliseconds(std::abs(static_cast<double>(offset))), offset < 0 ? "ahead of" : "behind");
      f.page = "diagnostics";
      f.evidence = {{"offset_ns", offset}, {"host", host}, {"ranks", Json::array()}};
      for (const auto& [rank, unused] : ranks) f.evidence["ranks"].push_back(rank);
      out_.push_back(std::move(f));
    }
  }

  /// Waiting for data on one rank more than on the others, or everywhere.
  void loaders() {
    const auto ranks = per_rank_.ranks();
    std::vector<double> waits;
    for (const auto rank : ranks)
      waits.push_back(per_rank_.median_of(rank, &StepTimes::loader_wait));
    const double usual = median(waits);
    bool everywhere = ranks.size() > 0;
    for (const double w : waits) everywhere = everywhere && w > 0.1 * step_ns_;
    if (everywhere) {
      Finding f;
      f.kind = "data_bound";
      f.advice = true;
      if (ranks.size() == 1) f.rank = ranks.front();
      f.severity = usual / step_ns_;
      f.words = fmt::format(
          "every step waits {} ({} of its time) for the data loader; more data.workers or cached "
          "samples would hide it",
          milliseconds(usual), percent(f.severity));
      f.page = "overview";
      f.evidence = {{"loader_wait_ns", usual}};
      out_.push_back(std::move(f));
    }
    for (size_t i = 0; i < ranks.size(); ++i) {
      const double excess = waits[i] - (ranks.size() == 2 ? std::min(waits[0], waits[1]) : usual);
      if (ranks.size() < 2 || excess < std::max(0.05 * step_ns_, 1e6)) {
        lone_stall(ranks[i]);
        continue;
      }
      stalled_.insert(ranks[i]);
      Finding f;
      f.kind = "loader_stall";
      f.rank = ranks[i];
      f.severity = excess / step_ns_;
      f.words = fmt::format(
          "rank {} waits {} in every step for its data loader, {} longer than the others: {} of "
          "the step",
          ranks[i], milliseconds(waits[i]), milliseconds(excess), percent(f.severity));
      f.page = "overview";
      f.evidence = {{"loader_wait_ns", waits[i]}, {"usual_ns", usual}, {"step_ns", step_ns_}};
      out_.push_back(std::move(f));
    }
  }

  /// A single step in which the loader was late by far.
  void lone_stall(int64_t rank) {
    const auto& steps = per_rank_.at(rank);
    const double usual = per_rank_.median_of(rank, &StepTimes::loader_wait);
    for (const auto* s : steps) {
      const double excess = static_cast<double>(s->loader_wait) - usual;
      // The first profiled step also starts the loader.
      if (s == steps.front() || excess < std::max(0.5 * step_ns_, 10e6)) continue;
      stalled_.insert(rank);
      Finding f;
      f.kind = "loader_stall";
      f.rank = rank;
      f.step = s->step;
      f.severity = excess / step_ns_ / static_cast<double>(steps.size());
      f.words = fmt::format("rank {} waits {} for its data loader in step {}, usually {}", rank,
                            milliseconds(static_cast<double>(s->loader_wait)), s->step,
                            milliseconds(usual));
      f.page = "overview";
      f.evidence = {{"loader_wait_ns", s->loader_wait}, {"usual_ns", usual}};
      out_.push_back(std::move(f));
    }
  }

  /// More compute than its peers in nearly every step, and late in the collectives that it shares
  /// with them. Compute alone may be noise of the machine, lateness alone another cause.
  void slow_ranks() {
    std::map<int64_t, RankComm> comm;
    for (const auto& r : rank_comm(calls_, "")) comm[r.rank] = r;
    std::set<int64_t> reported;
    for (const auto& members : peers()) {
      std::vector<double> compute;
      for (const auto rank : members)
        compute.push_back(per_rank_.median_of(rank, &StepTimes::compute));
      const double usual = members.size() == 2 ? std::min(compute[0], compute[1]) : median(compute);
      for (size_t i = 0; i < members.size(); ++i) {
        const int64_t rank = members[i];
        const double excess = usual > 0 ? compute[i] / usual - 1 : 0;
        if (excess < least_excess(rank) || reported.contains(rank)) continue;
        const double z = robust_z(compute[i], compute);
        if (members.size() > 3 && z > 0 && z < 3.5) continue;
        const auto [slowest, steps] = slowest_steps(rank, members);
        // Of two ranks one is the slower in both of two steps half the time.
        if (slowest < 0.75 * static_cast<double>(steps) ||
            chance_of(slowest, steps, 1.0 / static_cast<double>(members.size())) > kMostChance)
          continue;
        const auto at = comm.find(rank);
        double others_wait = 0;
        for (const auto other : members)
          if (other != rank && comm.contains(other))
            others_wait = std::max(others_wait, comm[other].wait_ns);
        const bool late =
            at == comm.end() || (at->second.wait_ns < 0.5 * others_wait && at->second.late_ns >= 0);
        if (!late) continue;
        reported.insert(rank);
        Finding f;
        f.kind = "slow_rank";
        f.rank = rank;
        f.severity = (compute[i] - usual) / step_ns_;
        f.words = fmt::format(
            "rank {} computes {} a step, {} more than its peers ({}), and the others wait for it; "
            "look at its clocks, heat, or at what else runs there",
            rank, milliseconds(compute[i]), percent(excess), milliseconds(usual));
        f.page = "communication";
        f.evidence = {{"compute_ns", compute[i]},
                      {"peers_compute_ns", usual},
                      {"excess", excess},
                      {"z", z},
                      {"slowest_share", static_cast<double>(slowest) / static_cast<double>(steps)}};
        if (at != comm.end()) {
          f.evidence["wait_ns"] = at->second.wait_ns;
          f.evidence["others_wait_ns"] = others_wait;
          f.evidence["late_ns"] =
              at->second.late_ns / static_cast<double>(std::max<int64_t>(1, at->second.calls));
        }
        out_.push_back(std::move(f));
      }
    }
  }

  /// Devices repeat their times within a few per cent; processes that share a CPU's caches do not.
  double least_excess(int64_t rank) const {
    const int file = run_.file_of(rank, span_);
    return file >= 0 && run_.files()[static_cast<size_t>(file)].trace.has_device_work() ? 0.05
                                                                                        : 0.1;
  }

  /// In how many steps it computes longest, of how many.
  std::pair<int64_t, int64_t> slowest_steps(int64_t rank,
                                            const std::vector<int64_t>& members) const {
    std::map<int64_t, std::pair<int64_t, int64_t>> slowest;  // step -> (compute, rank)
    for (const auto member : members)
      for (const auto* s : per_rank_.at(member)) {
        auto& [compute, of] = slowest[s->step];
        if (s->compute > compute) compute = s->compute, of = member;
      }
    int64_t count = 0;
    for (const auto& [step, who] : slowest) count += who.second == rank;
    return {count, static_cast<int64_t>(slowest.size())};
  }

  void links() {
    for (const auto& s : slow_links(run_, calls_)) {
      Finding f;
      f.kind = "slow_link";
      f.src = s.src;
      f.dst = s.dst;
      f.severity = step_ns_ > 0 ? 0.1 : 0;
      f.words = fmt::format(
          "the link from rank {} to rank {} carries {}, {} of what links of its kind carry ({}), "
          "over {} {}",
          s.src, s.dst, rate(s.bandwidth), percent(s.bandwidth / s.usual), rate(s.usual),
          s.messages, s.estimated ? "collectives of their group" : "messages above 1 MiB");
      f.page = "communication";
      f.evidence = {{"bandwidth", s.bandwidth},
                    {"usual_bandwidth", s.usual},
                    {"z", s.z},
                    {"messages", s.messages}};
      out_.push_back(std::move(f));
    }
  }

  void exposed() {
    std::vector<double> shares, bubbles;
    for (const auto& s : steps_) {
      if (s.step < 0 || s.total <= 0) continue;
      shares.push_back(static_cast<double>(s.exposed - std::min(s.exposed, s.bubble)) /
                       static_cast<double>(s.total));
      bubbles.push_back(static_cast<double>(s.bubble) / static_cast<double>(s.total));
    }
    const double share = median(shares);
    // Waiting for a slow or stalled rank, or over a slow link, is named there.
    const bool explained = std::ranges::any_of(
        out_, [](const Finding& f) { return f.kind == "slow_rank" || f.kind == "loader_stall"; });
    if (share > 0.3 && !explained) {
      Finding f;
      f.kind = "exposed_communication";
      f.advice = true;
      f.severity = share;
      f.words =
          fmt::format("{} of the step is communication that no compute hides", percent(share));
      f.page = "communication";
      f.evidence = {{"share", share}};
      out_.push_back(std::move(f));
    }
  }

  void outliers() {
    for (const auto rank : per_rank_.ranks()) {
      const auto& steps = per_rank_.at(rank);
      if (steps.size() < 5) continue;
      std::vector<double> totals;
      for (const auto* s : steps) totals.push_back(static_cast<double>(s->total));
      const double usual = median(totals);
      for (const auto* s : steps) {
        const auto total = static_cast<double>(s->total);
        // The first profiled step is often long: the profiler warms up.
        if (total < 2 * usual || s == steps.front() || robust_z(total, totals) < 3.5) continue;
        if (stalled_.contains(rank) || !outlier_steps_.insert(s->step).second) continue;
        Finding f;
        f.kind = "outlier_step";
        f.advice = true;
        f.rank = rank;
        f.step = s->step;
        f.severity = (total - usual) / usual / static_cast<double>(steps.size());
        f.words = fmt::format("step {} takes {}, usually {}", s->step, milliseconds(total),
                              milliseconds(usual));
        f.page = "steps";
        f.evidence = {{"total_ns", total}, {"usual_ns", usual}};
        out_.push_back(std::move(f));
      }
    }
  }

  /// What is allocated at the ends of steps grows without pause.
  void memory_growth() {
    for (const int file : run_.files_of_span(span_)) {
      const auto& f = run_.files()[static_cast<size_t>(file)];
      const Trace& t = f.trace;
      if (t.steps().size() < 5 || t.memory().empty()) continue;
      std::vector<double> at_end;
      size_t m = 0;
      double last = -1;
      for (const auto& step : t.steps()) {
        for (; m < t.memory().size() && t.memory()[m].ts_ns <= step.end_ns; ++m)
          if (t.memory()[m].total_allocated >= 0)
            last = static_cast<double>(t.memory()[m].total_allocated);
        if (last >= 0) at_end.push_back(last);
      }
      if (at_end.size() < 5) continue;
      bool grows = true;
      for (size_t i = 2; i < at_end.size(); ++i) grows = grows && at_end[i] > at_end[i - 1];
      const double growth = at_end.back() - at_end[1];
      if (!grows || growth < std::max(0.02 * at_end[1], 16.0 * (1 << 20))) continue;
      Finding finding;
      finding.kind = "memory_growth";
      finding.rank = f.rank;
      finding.words = fmt::format(
          "what rank {} holds at the end of a step grows by {:.1f} MiB a step; something is kept "
          "that should be let go",
          f.rank, growth / static_cast<double>(at_end.size() - 2) / (1 << 20));
      finding.page = "memory";
      finding.evidence = {{"growth_bytes", growth}, {"steps", at_end.size()}};
      out_.push_back(std::move(finding));
    }
  }

  void damage() {
    for (const auto& f : run_.files()) {
      if (f.error.empty() && !f.trace.truncated()) continue;
      if (!f.loaded) continue;
      Finding finding;
      finding.kind = "profiling_damage";
      finding.rank = f.rank;
      finding.words =
          f.error.empty()
              ? fmt::format("the trace of rank {} breaks off; what comes before is shown", f.rank)
              : "the trace of rank " + std::to_string(f.rank) + " could not be read: " + f.error;
      finding.page = "diagnostics";
      out_.push_back(std::move(finding));
    }
  }

  const Run& run_;
  const CommCalls& calls_;
  const std::vector<StepTimes>& steps_;
  PerRank per_rank_;
  int64_t span_;
  double step_ns_ = 0;
  std::set<int64_t> stalled_, outlier_steps_;
  std::vector<Finding> out_;
};

}  // namespace

std::vector<Finding> find_problems(const Run& run, const CommCalls& calls,
                                   const std::vector<StepTimes>& steps, int64_t span) {
  return Finder(run, calls, steps, span).run();
}

Json to_json(const Finding& f) {
  Json out{{"kind", f.kind}, {"words", f.words}, {"severity", f.severity}, {"page", f.page}};
  if (f.rank) out["rank"] = *f.rank;
  if (f.step) out["step"] = *f.step;
  if (f.src) out["src"] = *f.src;
  if (f.dst) out["dst"] = *f.dst;
  if (f.slice) out["slice"] = *f.slice;
  out["evidence"] = f.evidence;
  return out;
}

}  // namespace triptych::insight

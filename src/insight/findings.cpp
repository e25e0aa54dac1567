#include "insight/findings.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/format.h"
#include "insight/alignment.h"
#include "insight/communication.h"
#include "insight/finding_places.h"
#include "insight/per_rank.h"
#include "insight/slow_ranks.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

std::string milliseconds(double ns) { return fmt::format("{:.2f} ms", ns / 1e6); }
std::string percent(double share) { return fmt::format("{:.0f} %", share * 100); }
std::string rate(double bytes_per_s) {
  return bytes_per_s >= 1e9 ? fmt::format("{:.2f} GB/s", bytes_per_s / 1e9)
                            : fmt::format("{:.1f} MB/s", bytes_per_s / 1e6);
}

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
      for (auto& f : slow_ranks(run_, calls_, per_rank_, span_, step_ns_))
        out_.push_back(std::move(f));
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
  void clocks() {
    std::set<int64_t> reported;
    std::map<int64_t, std::vector<std::pair<int64_t, std::string>>> by_offset;
    for (const int file : run_.files_of_span(span_)) {
      const auto& f = run_.files()[static_cast<size_t>(file)];
      if (f.offset_ns != 0) by_offset[f.offset_ns].push_back({f.rank, host_of(f.trace)});
    }
    std::vector<HostClock> clocks;
    for (const auto& [offset, ranks] : by_offset) {
      constexpr int64_t kLeast = 200000;
      if (std::abs(offset) < kLeast) continue;
      if (clocks.empty()) clocks = estimate_clocks(run_, calls_, span_);
      const int64_t scatter = scatter_of(clocks, ranks.front().second);
      // Where single collectives end further apart than that, it may be they and not the clock: the
      // same 8 that give a rank a clock of its own (alignment.cpp).
      if (std::abs(offset) <= 8 * scatter) continue;
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
      f.evidence = {
          {"offset_ns", offset}, {"scatter_ns", scatter}, {"host", host}, {"ranks", Json::array()}};
      for (const auto& [rank, unused] : ranks) f.evidence["ranks"].push_back(rank);
      out_.push_back(std::move(f));
    }
  }

  /// How far the ends of single collectives scatter on a host, or on the one it is compared with.
  int64_t scatter_of(const std::vector<HostClock>& clocks, const std::string& host) const {
    const auto files = run_.files_of_span(span_);
    const auto reference = host_of(run_.files()[static_cast<size_t>(files.front())].trace);
    int64_t most = 0;
    for (const auto& clock : clocks)
      if (clock.host == host || clock.host == reference)
        most = std::max(most, clock.residual_median_ns);
    return most;
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
      f.slice = place_of_loader_wait(run_, run_.file_of(ranks.front(), span_));
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
      f.slice = place_of_loader_wait(run_, run_.file_of(ranks[i], span_));
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
      f.slice = place_of_loader_wait(run_, s->file, s->step);
      f.evidence = {{"loader_wait_ns", s->loader_wait}, {"usual_ns", usual}};
      out_.push_back(std::move(f));
    }
  }

  /// Slow links that cost something: what takes 2 % of a step shows in no step's time.
  void links() {
    std::set<int64_t> steps;
    for (const auto& s : steps_) steps.insert(s.step);
    const double all_ns = step_ns_ * static_cast<double>(steps.size());
    for (const auto& s : slow_links(run_, calls_)) {
      const double cost = all_ns > 0 ? s.excess_ns / all_ns : 0;
      if (all_ns > 0 && cost < 0.02) continue;
      Finding f;
      f.kind = "slow_link";
      f.src = s.src;
      f.dst = s.dst;
      f.severity = cost;
      f.words = fmt::format(
          "the link from rank {} to rank {} carries {}, {} of what links of its kind carry ({}), "
          "over {} {}",
          s.src, s.dst, rate(s.bandwidth), percent(s.bandwidth / s.usual), rate(s.usual),
          s.messages, s.estimated ? "collectives of their group" : "messages above 1 MiB");
      f.page = "communication";
      f.slice = place_of_link(calls_, s.src, s.dst);
      f.evidence = {{"bandwidth", s.bandwidth},
                    {"usual_bandwidth", s.usual},
                    {"z", s.z},
                    {"messages", s.messages},
                    {"excess_ns", s.excess_ns}};
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
      f.slice = place_of_wait(calls_);
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
        f.page = "overview";
        f.slice = place_of_step(run_, *s);
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

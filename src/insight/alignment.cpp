#include "insight/alignment.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "insight/comm_calls.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

/// Ends of matched collectives, per file: distance from the median end, and when.
struct Ends {
  std::vector<double> distance;  ///< median end - own end, ns
  std::vector<double> time;
};

std::map<int, Ends> ends_by_file(const CommCalls& calls) {
  std::map<int, Ends> out;
  for (const auto& call : calls.calls) {
    // Only calls that hold everybody until the end; a broadcast's root leaves early.
    const bool blocking = call.type == "all_reduce" || call.type == "all_gather" ||
                          call.type == "reduce_scatter" || call.type == "all_to_all";
    if (!blocking || call.parts.size() < 2) continue;
    std::vector<double> ends;
    for (const auto& part : call.parts) ends.push_back(static_cast<double>(part.end_ns));
    const double middle = median(ends);
    for (const auto& part : call.parts) {
      auto& e = out[part.file];
      e.distance.push_back(middle - static_cast<double>(part.end_ns));
      e.time.push_back(middle);
    }
  }
  return out;
}

double drift_of(const Ends& e) {
  if (e.time.size() < 8 || e.time.back() - e.time.front() < 10e9) return 0;
  std::vector<double> slopes;  // Theil-Sen over pairs half the calls apart
  const size_t half = e.time.size() / 2;
  for (size_t i = 0; i + half < e.time.size(); ++i)
    if (e.time[i + half] > e.time[i])
      slopes.push_back((e.distance[i + half] - e.distance[i]) / (e.time[i + half] - e.time[i]));
  return median(slopes);
}

std::vector<HostClock> clocks_of(const Run& run, const CommCalls& calls, int64_t span,
                                 std::map<int, std::string>& clock_name) {
  const auto ends = ends_by_file(calls);
  std::map<std::string, Ends> hosts;
  std::map<std::string, int> ranks_of;
  for (const int file : run.files_of_span(span)) {
    clock_name[file] = host_of(run.files()[static_cast<size_t>(file)].trace);
    ++ranks_of[clock_name[file]];
  }
  // A rank may also disagree with its own host (containers, edited traces): then it has a clock of
  // its own. Only far beyond what leaving a collective late explains.
  for (const auto& [file, e] : ends) {
    if (e.distance.size() < 5 || ranks_of[clock_name[file]] < 2) continue;
    std::vector<double> others;
    for (const auto& [other, o] : ends)
      if (other != file && clock_name[other] == clock_name[file])
        others.push_back(median(o.distance));
    if (others.empty()) continue;
    const double own = median(e.distance);
    const double apart = std::abs(own - median(others));
    const double spread = median_deviation(e.distance);
    const bool odd_one = others.size() >= 2 || file != ends.begin()->first;
    if (odd_one && apart > 1e6 && apart > 8 * spread)
      clock_name[file] += (clock_name[file].empty() ? "rank " : " rank ") +
                          std::to_string(run.files()[static_cast<size_t>(file)].rank);
  }
  for (const auto& [file, e] : ends) {
    auto& host = hosts[clock_name[file]];
    host.distance.insert(host.distance.end(), e.distance.begin(), e.distance.end());
    host.time.insert(host.time.end(), e.time.begin(), e.time.end());
  }
  std::vector<HostClock> out;
  for (const auto& [name, e] : hosts) {
    HostClock clock;
    clock.host = name;
    const double offset = median(e.distance);
    clock.offset_ns = std::llround(offset);
    clock.drift = drift_of(e);
    clock.calls = static_cast<int64_t>(e.distance.size());
    std::vector<double> rest;
    for (const double d : e.distance) rest.push_back(std::abs(d - offset));
    clock.residual_p95_ns = std::llround(quantile(rest, 0.95));
    clock.residual_median_ns = std::llround(median(rest));
    out.push_back(clock);
  }
  // Offsets are relative: the clock of the first rank keeps its time.
  int64_t reference = 0;
  for (const int file : run.files_of_span(span)) {
    const auto at = std::ranges::find(out, clock_name[file], &HostClock::host);
    if (at == out.end()) continue;
    reference = at->offset_ns;
    break;
  }
  for (auto& clock : out) clock.offset_ns -= reference;
  return out;
}

}  // namespace

std::string host_of(const Trace& trace) {
  const auto& m = trace.metadata();
  if (m.contains("mm") && m["mm"].is_object() && m["mm"].contains("host") &&
      m["mm"]["host"].is_string())
    return m["mm"]["host"].get<std::string>();
  if (m.contains("host_name") && m["host_name"].is_string())
    return m["host_name"].get<std::string>();
  return "";
}

std::vector<HostClock> align_clocks(Run& run) {
  std::vector<HostClock> all;
  for (const int64_t span : run.spans()) {
    std::map<int, std::string> clock_name;
    const auto clocks = clocks_of(run, match_calls(run, span), span, clock_name);
    if (clocks.size() < 2) continue;
    for (const auto& [file, name] : clock_name) {
      const auto at = std::ranges::find(clocks, name, &HostClock::host);
      if (at == clocks.end() || at->calls < 3) continue;
      // Below this the ends of a collective differ by themselves.
      constexpr int64_t kLeast = 20000;
      if (std::abs(at->offset_ns) > kLeast) ClockAlignment::set_offset(run, file, at->offset_ns);
    }
    all.insert(all.end(), clocks.begin(), clocks.end());
  }
  return all;
}

std::vector<HostClock> estimate_clocks(const Run& run, const CommCalls& calls, int64_t span) {
  std::map<int, std::string> clock_name;
  return clocks_of(run, calls, span, clock_name);
}

}  // namespace triptych::insight

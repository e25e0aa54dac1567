#include "insight/hta.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <unordered_map>

#include "insight/hta_table.h"
#include "insight/intervals.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

using namespace hta;

double round_to(double value, int digits) {
  const double scale = std::pow(10, digits);
  return std::nearbyint(value * scale) / scale;
}

Json temporal(const RankTable& r, int64_t rank) {
  std::vector<Interval> all;
  for (const auto& d : r.device()) all.push_back(d.interval());
  if (all.empty()) return {{"rank", rank}, {"empty", "no device work"}};
  all = group_intervals(std::move(all));
  const int64_t kernel = all.back().end - all.front().begin, idle = kernel - sum_of_lengths(all);
  const int64_t compute = sum_of_lengths(r.of_kind(Kind::kComputation)),
                rest = kernel - compute - idle;
  const auto share = [&](int64_t part) { return round_to(100 * r.us(part) / r.us(kernel), 2); };
  return {{"rank", rank},
          {"idle_time(us)", r.us(idle)},
          {"compute_time(us)", r.us(compute)},
          {"non_compute_time(us)", r.us(rest)},
          {"kernel_time(us)", r.us(kernel)},
          {"idle_time_pctg", share(idle)},
          {"compute_time_pctg", share(compute)},
          {"non_compute_time_pctg", share(rest)}};
}

/// Time of each state, where a state is the sum of the values of the kinds that run. A group of -1
/// us ends before it begins, and takes its value away for so long, as in HTA.
std::map<int, int64_t> state_times(
    const std::vector<std::pair<std::vector<Interval>, int>>& kinds) {
  std::vector<std::pair<int64_t, int>> changes;
  for (const auto& [groups, value] : kinds) {
    for (const auto& i : groups) {
      changes.emplace_back(i.begin, value);
      changes.emplace_back(i.end, -value);
    }
  }
  std::ranges::sort(changes);
  std::map<int, int64_t> times;
  int running = 0;
  for (size_t i = 0; i + 1 < changes.size(); ++i) {
    running += changes[i].second;
    times[running] += changes[i + 1].first - changes[i].first;
  }
  return times;
}

Json overlap(const RankTable& r, int64_t rank) {
  const auto comm = r.of_kind(Kind::kCommunication);
  const int64_t length = sum_of_lengths(comm);
  Json value = nullptr;
  if (length > 0) {
    auto times = state_times({{comm, 1}, {r.of_kind(Kind::kComputation), 2}});
    value = round_to(100 * r.us(times[3]) / r.us(length), 2);
  }
  return {{"rank", rank}, {"comp_comm_overlap_pctg", value}};
}

/// Exclusive and overlapping time of the three kinds.
std::map<std::string, int64_t> type_times(const RankTable& r) {
  const std::pair<Kind, std::string> kinds[] = {{Kind::kComputation, "COMPUTATION"},
                                                {Kind::kCommunication, "COMMUNICATION"},
                                                {Kind::kMemory, "MEMORY"}};
  std::vector<std::pair<std::vector<Interval>, int>> lists;
  for (const auto& [kind, name] : kinds) lists.emplace_back(r.of_kind(kind), 1 << lists.size());
  std::map<std::string, int64_t> out;
  for (const auto& [state, time] : state_times(lists)) {
    if (state <= 0 || time == 0) continue;
    std::string name;
    for (size_t k = 0; k < std::size(kinds); ++k)
      if ((state & 1 << k) != 0) name += (name.empty() ? "" : " overlapping ") + kinds[k].second;
    out[name] += time;
  }
  return out;
}

struct NameSum {
  std::string name;
  std::vector<double> values;
  double sum = 0;
};
double sample_std(const std::vector<double>& v) {
  if (v.size() < 2) return 0;
  const double m = mean(v);
  double sum = 0;
  for (const double x : v) sum += (x - m) * (x - m);
  return std::sqrt(sum / static_cast<double>(v.size() - 1));
}

/// Sums by name; what goes beyond `most` names, or beyond the 0.8 quantile of the running sums,
/// becomes "others".
Json by_name(std::vector<NameSum> rows, size_t most, int64_t rank, const char* kind) {
  for (auto& row : rows)
    for (const double v : row.values) row.sum += v;
  std::ranges::stable_sort(rows, [](const NameSum& a, const NameSum& b) { return a.sum > b.sum; });
  const bool fold = rows.size() > most;
  std::vector<NameSum> folded;
  if (fold) {
    std::vector<double> running;
    double sum = 0;
    for (const auto& row : rows) running.push_back(sum += row.sum);
    const double limit = quantile(running, 0.8);
    NameSum others{"others", {}, 0};
    for (size_t i = 0; i < rows.size(); ++i) {
      if (running[i] > limit || i >= most)
        others.values.push_back(rows[i].sum);
      else
        folded.push_back({rows[i].name, {rows[i].sum}, rows[i].sum});
    }
    if (!others.values.empty()) folded.push_back(std::move(others));
    for (auto& row : folded) {
      row.sum = 0;
      for (const double v : row.values) row.sum += v;
    }
    rows = std::move(folded);
  }
  Json out = Json::array();
  for (const auto& row : rows)
    out.push_back({{"name", row.name},
                   {"sum (us)", row.sum},
                   {"max (us)", std::ranges::max(row.values)},
                   {"min (us)", std::ranges::min(row.values)},
                   {"mean (us)", mean(row.values)},
                   {"stddev", sample_std(row.values)},
                   {"kernel_type", kind},
                   {"rank", rank}});
  return out;
}

std::vector<NameSum> names_of(const RankTable& r, const std::vector<Item>& items) {
  std::map<std::string, NameSum> sums;
  for (const auto& i : items) {
    const std::string name(r.trace().name(i.event));
    sums[name].name = name;
    sums[name].values.push_back(r.us(i.dur));
  }
  std::vector<NameSum> out;
  for (auto& [name, sum] : sums) out.push_back(std::move(sum));
  return out;
}

/// As TraceDiff counts the host's side.
Json counts_of(const std::vector<NameSum>& names, int64_t rank) {
  Json out = Json::array();
  for (const auto& name : names) {
    double sum = 0;
    for (const double v : name.values) sum += v;
    out.push_back({{"name", name.name},
                   {"counts", name.values.size()},
                   {"total_duration", sum},
                   {"rank", rank}});
  }
  return out;
}

Json idle(const RankTable& r, int64_t rank) {
  static constexpr const char* kNames[] = {"host_wait", "kernel_wait", "other"};
  std::map<int64_t, std::vector<Item>> streams;
  const Trace& t = r.trace();
  for (const auto& d : r.device())
    if (t.category(d.event) != Category::kSync)
      streams[t.tracks()[t.track_of(d.event)].tid].push_back(d);
  Json out = Json::array();
  for (const auto& [stream, items] : streams) {
    std::array<std::optional<int64_t>, 3> sums;
    int64_t total = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i == 0) {  // the first has nothing before it: HTA files it under "other" with no length
        sums[2] = sums[2].value_or(0);
        continue;
      }
      const int64_t before = items[i - 1].end(), gap = items[i].ts - before;
      const EventId launch = t.linked(items[i].event);
      const bool late = launch != kNone && r.item(launch).ts > before;
      const size_t kind = late ? 0 : gap < r.threshold(30) ? 1 : 2;
      sums[kind] = sums[kind].value_or(0) + gap;
      total += gap;
    }
    for (size_t k = 0; k < 3; ++k)
      if (sums[k])
        out.push_back(
            {{"rank", rank},
             {"stream", stream},
             {"idle_category", kNames[k]},
             {"idle_time", r.us(*sums[k])},
             {"idle_time_ratio",
              total != 0 ? Json(round_to(r.us(*sums[k]) / r.us(total), 2)) : Json(nullptr)}});
  }
  return out;
}

Json describe(std::vector<double> values) {
  const double m = mean(values), s = sample_std(values);
  return {{"count", values.size()},
          {"mean", m},
          {"std", values.size() < 2 ? Json(nullptr) : Json(s)},
          {"min", quantile(values, 0)},
          {"25%", quantile(values, 0.25)},
          {"50%", quantile(values, 0.5)},
          {"75%", quantile(values, 0.75)},
          {"max", quantile(values, 1)}};
}

/// Calls whose kernels wait in a queue.
bool is_enqueue_name(std::string_view name) {
  static const std::set<std::string_view> kNames = {
      "cudaLaunchKernel",
      "cudaLaunchKernelExC",
      "cuLaunchKernel",
      "cudaMemcpyAsync",
      "cudaMemsetAsync",
      "hipLaunchKernel",
      "hipExtModuleLaunchKernel",
      "hipMemcpyAsync",
      "hipMemcpyWithStream",
      "hipMemsetAsync",
      "runFunction - job_prep_and_submit_for_execution"};
  return kNames.contains(name);
}

/// Calls whose delay is measured.
bool is_launch_name(std::string_view name) {
  return name == "cudaLaunchKernel" || name == "cudaLaunchKernelExC" || name == "cudaMemcpyAsync" ||
         name == "cudaMemsetAsync" || name == "runFunction - job_prep_and_submit_for_execution";
}

Json launches(const RankTable& r, int64_t rank) {
  const Trace& t = r.trace();
  std::unordered_map<uint32_t, std::vector<Item>> calls;
  for (const auto& h : r.host())
    if (is_launch_name(t.name(h.event)) && t.correlation(h.event))
      calls[t.correlation(h.event)].push_back(h);
  std::vector<double> cpu, gpu, delay;
  for (const auto& d : r.device()) {
    const auto at = calls.find(t.correlation(d.event));
    if (at == calls.end()) continue;
    for (const auto& call : at->second) {
      cpu.push_back(r.us(call.dur));
      gpu.push_back(r.us(d.dur));
      delay.push_back(std::max(0.0, r.us(d.ts - call.ts - call.dur)));
    }
  }
  const auto sum = [](const std::vector<double>& v) {
    double s = 0;
    for (const double x : v) s += x;
    return s;
  };
  return {{"rank", rank},
          {"launches", delay.size()},
          {"cpu_duration", sum(cpu)},
          {"gpu_duration", sum(gpu)},
          {"launch_delay", sum(delay)},
          {"launch_delay_summary", delay.empty() ? Json(nullptr) : describe(delay)}};
}

Json queue_length(const RankTable& r, int64_t rank) {
  const Trace& t = r.trace();
  std::unordered_map<uint32_t, int64_t> launched;  // correlation -> time of the call
  for (const auto& h : r.host())
    if (is_enqueue_name(t.name(h.event)) && t.correlation(h.event))
      launched[t.correlation(h.event)] = h.ts;
  std::map<int64_t, std::vector<std::pair<int64_t, int>>> changes;
  for (const auto& d : r.device()) {
    const auto at = launched.find(t.correlation(d.event));
    if (at == launched.end()) continue;
    auto& list = changes[t.tracks()[t.track_of(d.event)].tid];
    list.push_back({at->second, 1});
    list.push_back({d.ts, -1});
  }
  Json out = Json::array();
  for (auto& [stream, list] : changes) {
    std::ranges::stable_sort(list, [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first < b.first : a.second > b.second;
    });
    std::vector<double> lengths;
    int length = 0;
    for (const auto& [ts, change] : list) lengths.push_back(length += change);
    Json row = describe(lengths);
    row["rank"] = rank;
    row["stream"] = stream;
    out.push_back(std::move(row));
  }
  return out;
}

std::string copy_kind(std::string_view name) {
  if (name.starts_with("Memset")) return "Memset";
  return name.starts_with("Memcpy") ? std::string(name.substr(0, 11)) : "Memcpy Unknown";
}

Json memory_bandwidth(const RankTable& r, int64_t rank) {
  const Trace& t = r.trace();
  std::map<std::string, std::vector<std::pair<int64_t, double>>> changes;
  for (const auto& d : r.device()) {
    if (kind_of(t.name(d.event)) != Kind::kMemory) continue;
    const auto* k = t.kernel(d.event);
    const double rate = k ? static_cast<double>(k->bandwidth_gbps) : 0;
    auto& list = changes[copy_kind(t.name(d.event))];
    list.push_back({d.ts, rate});
    list.push_back({d.ts + (d.dur == 0 ? 1 : d.dur), -rate});
  }
  Json out = Json::array();
  for (auto& [name, list] : changes) {
    std::ranges::stable_sort(list, {}, [](const auto& c) { return c.first; });
    std::vector<double> rates;
    double now = 0;
    for (const auto& [ts, change] : list)
      if ((now += change) > 1e-6) rates.push_back(now);
    if (rates.empty()) continue;
    Json row = describe(rates);
    row["rank"] = rank;
    row["name"] = name;
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace

Json hta_json(const Run& run, int64_t span) {
  Json out{
      {"rules",
       "HolisticTraceAnalysis 0.5: kernel span, last step dropped, memory copies in non-compute"},
      {"temporal_breakdown", Json::array()},
      {"comm_comp_overlap", Json::array()},
      {"gpu_kernel_types", Json::array()},
      {"gpu_kernels", Json::array()},
      {"idle_time_breakdown", Json::array()},
      {"cuda_kernel_launch_stats", Json::array()},
      {"queue_length_summary", Json::array()},
      {"memory_bw_summary", Json::array()},
      {"gpu_user_annotations", Json::array()},
      {"host_user_annotations", Json::array()},
      {"host_events", Json::array()}};
  const auto append = [&](const char* member, Json rows) {
    for (auto& row : rows) out[member].push_back(std::move(row));
  };
  std::map<std::string, double> types;
  for (const int file : run.files_of_span(span)) {
    const auto& f = run.files()[static_cast<size_t>(file)];
    if (!f.error.empty()) continue;
    const RankTable r(f.trace);
    const auto of_host = [&](Category category) {
      std::vector<Item> items;
      for (const auto& h : r.host())
        if (f.trace.category(h.event) == category) items.push_back(h);
      return names_of(r, items);
    };
    append("host_user_annotations",
           by_name(of_host(Category::kUserAnnotation), 1000, f.rank, "user_annotation"));
    append("host_events", counts_of(names_of(r, r.host()), f.rank));
    if (!f.trace.has_device_work()) continue;
    out["temporal_breakdown"].push_back(temporal(r, f.rank));
    out["comm_comp_overlap"].push_back(overlap(r, f.rank));
    for (const auto& [type, time] : type_times(r)) types[type] += r.us(time);
    for (const Kind kind : {Kind::kComputation, Kind::kCommunication, Kind::kMemory}) {
      std::vector<Item> items;
      for (const auto& d : r.device())
        if (kind_of(f.trace.name(d.event)) == kind) items.push_back(d);
      append("gpu_kernels",
             by_name(names_of(r, items), 10, f.rank, kKindNames[static_cast<int>(kind)]));
    }
    append("idle_time_breakdown", idle(r, f.rank));
    out["cuda_kernel_launch_stats"].push_back(launches(r, f.rank));
    append("queue_length_summary", queue_length(r, f.rank));
    append("memory_bw_summary", memory_bandwidth(r, f.rank));
    append("gpu_user_annotations",
           by_name(of_host(Category::kGpuUserAnnotation), 1000, f.rank, "gpu_user_annotation"));
  }
  double all = 0;
  for (const auto& [type, time] : types) all += time;
  std::vector<std::pair<std::string, double>> order(types.begin(), types.end());
  std::ranges::stable_sort(order, std::ranges::greater(), [](const auto& t) { return t.second; });
  for (const auto& [type, time] : order)
    out["gpu_kernel_types"].push_back(
        {{"kernel_type", type},
         {"sum", time},
         {"percentage", all > 0 ? round_to(100 * time / all, 1) : 0}});
  if (out["temporal_breakdown"].empty())
    out["empty"] =
        "these rules count device work, and the traces hold none; use profile summary without "
        "--hta";
  return out;
}

}  // namespace triptych::insight

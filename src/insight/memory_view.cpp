#include "insight/memory_view.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/format.h"
#include "insight/memory_categories.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"
#include "insight/work_class.h"

namespace triptych::insight {
namespace {

constexpr const char* kNothing =
    "no allocations were recorded; set profile.with_memory = true (PyTorch: profile_memory=True)";

/// The innermost operator on a track at a time.
EventId op_at(const Trace& t, uint32_t track_number, int64_t ts) {
  if (track_number >= t.tracks().size()) return kNone;
  const Track& track = t.tracks()[track_number];
  for (uint32_t r = track.num_rows; r-- > 0;) {
    const Row& row = t.rows()[track.first_row + r];
    const auto column = t.ts_column().subspan(row.first_event, row.num_events);
    const auto behind = std::ranges::upper_bound(column, ts);
    if (behind == column.begin()) continue;
    const auto e = static_cast<EventId>(row.first_event + (behind - column.begin()) - 1);
    if (t.end(e) >= ts) return e;
  }
  return kNone;
}

bool is_backward(const Trace& t, EventId e) {
  for (; e != kNone; e = t.parent(e)) {
    const auto* op = t.op(e);
    if ((op && op->forward_thread != 0) || t.name(e).starts_with("autograd::engine") ||
        t.name(e).starts_with("B stage"))
      return true;
  }
  return false;
}

/// What a block is for, where the run did not say: by when it lives.
std::string category_by_life(const Trace& t, const Allocation& a) {
  if (a.begin_ns == INT64_MIN) return "before start";
  for (EventId e = a.op; e != kNone; e = t.parent(e)) {
    if (t.name(e).starts_with("Optimizer.")) return "optimizer_state";
    if (t.work(e) == Work::kCommunication) return "communication buffer";
    if (t.name(e).find("DataLoader") != std::string_view::npos) return "input";
  }
  if (a.op != kNone && a.end_ns <= t.end(a.op)) return "temporary";
  const bool backward = a.op != kNone && is_backward(t, a.op);
  if (a.end_ns == INT64_MAX) return backward ? "gradient" : "unknown";
  // Freed at the latest in the backward of its own step.
  for (const auto& step : t.steps())
    if (a.begin_ns >= step.begin_ns && a.begin_ns < step.end_ns)
      return backward                 ? (a.end_ns < step.end_ns ? "gradient" : "unknown")
             : a.end_ns < step.end_ns ? "activation"
                                      : "unknown";
  return backward ? "gradient" : "activation";
}

bool on_device(const MemoryEvent& m, std::pair<int32_t, int32_t> d) {
  return m.device_type == d.first && m.device == d.second;
}

std::string device_name(std::pair<int32_t, int32_t> d) {
  return d.first == 0 ? "cpu" : fmt::format("{}:{}", d.first == 1 ? "cuda" : "device", d.second);
}

/// Allocated bytes after each record: as recorded, or summed up.
class Running {
 public:
  int64_t next(const MemoryEvent& m) {
    sum_ = m.total_allocated >= 0 ? m.total_allocated : sum_ + m.bytes;
    return sum_;
  }

 private:
  int64_t sum_ = 0;
};

/// {category: [bytes at each moment]} of the categories with the most bytes in all their blocks;
/// moments rise.
Json categories_at(const std::vector<int64_t>& moments,
                   const std::vector<Allocation>& allocations) {
  std::map<std::string, int64_t> sums;
  for (const auto& a : allocations) sums[a.category] += a.bytes;
  const ShownCategories shown(sums);
  std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> changes;  // when, by how much
  for (const auto& a : allocations) {
    auto& list = changes[shown.shown_as(a.category)];
    list.emplace_back(a.begin_ns, a.bytes);
    if (a.end_ns != INT64_MAX) list.emplace_back(a.end_ns, -a.bytes);
  }
  Json out = Json::object();
  for (auto& [name, list] : changes) {
    std::ranges::sort(list);
    Json values = Json::array();
    int64_t sum = 0;
    auto next = list.begin();
    for (const int64_t moment : moments) {
      for (; next != list.end() && next->first <= moment; ++next) sum += next->second;
      values.push_back(sum);
    }
    out[name] = std::move(values);
  }
  return out;
}

}  // namespace

std::vector<std::pair<int32_t, int32_t>> memory_devices(const Trace& t) {
  std::map<std::pair<int32_t, int32_t>, size_t> counts;
  for (const auto& m : t.memory()) ++counts[{m.device_type, m.device}];
  std::vector<std::pair<int32_t, int32_t>> out;
  for (const auto& [device, count] : counts) out.push_back(device);
  // A GPU's memory is what runs short; the host's only where there is no GPU.
  std::ranges::stable_sort(out, std::ranges::greater(),
                           [&](const auto& d) { return std::pair(d.first != 0, counts[d]); });
  return out;
}

std::vector<Allocation> allocations_of(const Trace& t, int32_t device_type, int32_t device) {
  std::vector<Allocation> out;
  std::unordered_map<uint64_t, size_t> live;
  for (const auto& m : t.memory()) {
    if (!on_device(m, {device_type, device})) continue;
    if (m.bytes >= 0) {
      Allocation a;
      a.address = m.address;
      a.bytes = m.bytes;
      a.begin_ns = m.ts_ns;
      a.track = m.track;
      a.category = std::string(t.string(m.category));
      a.module = std::string(t.string(m.module));
      live[m.address] = out.size();
      out.push_back(std::move(a));
    } else if (const auto at = live.find(m.address); at != live.end()) {
      out[at->second].end_ns = m.ts_ns;
      live.erase(at);
    } else {
      Allocation a;
      a.address = m.address;
      a.bytes = -m.bytes;
      a.end_ns = m.ts_ns;
      a.track = m.track;
      a.category = std::string(t.string(m.category));
      a.module = std::string(t.string(m.module));
      out.push_back(std::move(a));
    }
  }
  for (auto& a : out) {
    if (a.begin_ns != INT64_MIN) {
      a.op = op_at(t, a.track, a.begin_ns);
      if (a.op != kNone && a.module.empty()) a.module = module_of(t, a.op);
    }
    if (a.category.empty()) a.category = category_by_life(t, a);
  }
  std::ranges::stable_sort(out, {}, &Allocation::begin_ns);
  return out;
}

std::optional<Peak> memory_peak_of(const Trace& t, int32_t device_type, int32_t device) {
  std::optional<Peak> peak;
  Running running;
  for (const auto& m : t.memory()) {
    if (!on_device(m, {device_type, device})) continue;
    const int64_t now = running.next(m);
    if (!peak || now > peak->allocated)
      peak = {m.ts_ns, now, std::max<int64_t>(m.total_reserved, 0)};
  }
  return peak;
}

Json memory_curve_json(const Run& run, int file, int64_t points) {
  const auto& f = run.files()[static_cast<size_t>(file)];
  const Trace& t = f.trace;
  const auto devices = memory_devices(t);
  if (devices.empty())
    return {
        {"rank", f.rank}, {"points", Json::array()}, {"rows", Json::array()}, {"empty", kNothing}};
  const auto device = devices.front();
  points = std::clamp<int64_t>(points, 16, 20000);
  const int64_t begin = t.memory().front().ts_ns,
                span = std::max<int64_t>(1, t.memory().back().ts_ns - begin + 1);
  const auto bucket_of = [&](int64_t ts) {
    return static_cast<size_t>(static_cast<double>(ts - begin) / static_cast<double>(span) *
                               static_cast<double>(points));
  };
  struct Point {
    int64_t ts = 0, allocated = -1, reserved = 0;
  };
  // The highest value of every stretch, so that no peak is lost.
  std::vector<Point> high(static_cast<size_t>(points));
  Running running;
  const auto& records = t.memory();
  for (size_t i = 0; i < records.size(); ++i) {
    const auto& m = records[i];
    if (!on_device(m, device)) continue;
    const int64_t now = running.next(m);
    // A buffer in parts goes at once: between them lies no moment.
    if (i + 1 < records.size() && m.bytes < 0 && records[i + 1].bytes < 0 &&
        records[i + 1].ts_ns == m.ts_ns && on_device(records[i + 1], device))
      continue;
    auto& p = high[std::min(bucket_of(m.ts_ns), high.size() - 1)];
    if (now > p.allocated) p = {m.ts_ns, now, std::max<int64_t>(0, m.total_reserved)};
  }
  Json list = Json::array();
  std::vector<int64_t> moments;
  for (const auto& p : high) {
    if (p.allocated < 0) continue;
    moments.push_back(p.ts);
    list.push_back(
        {{"t", run.aligned(file, p.ts)}, {"allocated", p.allocated}, {"reserved", p.reserved}});
  }
  auto categories = categories_at(moments, allocations_of(t, device.first, device.second));
  Json out{{"rank", f.rank},
           {"device", device_name(device)},
           {"points", list},
           {"rows", list},
           {"categories", std::move(categories)}};
  if (const auto peak = memory_peak_of(t, device.first, device.second))
    out["peak"] = {
        {"t", run.aligned(file, peak->ts_ns)},
        {"allocated", peak->allocated},
        {"reserved", peak->reserved},
        {"fragmentation", peak->reserved > 0 ? 1 - static_cast<double>(peak->allocated) /
                                                       static_cast<double>(peak->reserved)
                                             : 0}};
  return out;
}

Json layer_rows(const BytesByModule& modules, int64_t allocated) {
  std::map<std::string, int64_t> categories;
  for (const auto& [module, parts] : modules)
    for (const auto& [category, part] : parts) categories[category] += part;
  const ShownCategories shown(categories);
  std::vector<std::pair<int64_t, Json>> order;
  for (const auto& [module, parts] : modules) {
    std::map<std::string, int64_t> sums;
    int64_t bytes = 0;
    for (const auto& [category, part] : parts) {
      sums[shown.shown_as(category)] += part;
      bytes += part;
    }
    Json row{{"module", display_name(module)}};
    for (const auto& [category, part] : sums) row[category] = part;
    row["bytes"] = bytes;
    row["share"] = allocated > 0 ? static_cast<double>(bytes) / static_cast<double>(allocated) : 0;
    order.emplace_back(bytes, std::move(row));
  }
  std::ranges::stable_sort(order, std::ranges::greater(), &std::pair<int64_t, Json>::first);
  Json rows = Json::array();
  for (auto& [bytes, row] : order) rows.push_back(std::move(row));
  return rows;
}

Json memory_peak_json(const Run& run, int file) {
  const auto& f = run.files()[static_cast<size_t>(file)];
  const Trace& t = f.trace;
  const auto devices = memory_devices(t);
  const auto peak = devices.empty()
                        ? std::nullopt
                        : memory_peak_of(t, devices.front().first, devices.front().second);
  if (!peak) return {{"rank", f.rank}, {"rows", Json::array()}, {"empty", kNothing}};
  struct Sum {
    int64_t bytes = 0, count = 0;
  };
  std::map<std::tuple<std::string, std::string, std::string>, Sum> sums;
  std::map<std::string, int64_t> by_category;
  BytesByModule by_module;
  int64_t listed = 0;
  for (const auto& a : allocations_of(t, devices.front().first, devices.front().second)) {
    // The record of the peak itself allocates: it counts. One that ends there was let go before.
    if (a.begin_ns > peak->ts_ns || a.end_ns <= peak->ts_ns) continue;
    auto& sum = sums[{a.category, a.module, a.op == kNone ? "" : display_name(t.name(a.op))}];
    sum.bytes += a.bytes;
    ++sum.count;
    by_category[a.category] += a.bytes;
    by_module[a.module][a.category] += a.bytes;
    listed += a.bytes;
  }
  if (peak->allocated > listed) by_category["before start"] += peak->allocated - listed;
  std::vector<std::pair<std::tuple<std::string, std::string, std::string>, Sum>> order(sums.begin(),
                                                                                       sums.end());
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& s) { return s.second.bytes; });
  Json rows = Json::array();
  for (size_t i = 0; i < order.size() && i < 50; ++i) {
    const auto& [category, module, op] = order[i].first;
    rows.push_back({{"category", category},
                    {"module", display_name(module)},
                    {"op", op},
                    {"bytes", order[i].second.bytes},
                    {"count", order[i].second.count},
                    {"share", peak->allocated > 0 ? static_cast<double>(order[i].second.bytes) /
                                                        static_cast<double>(peak->allocated)
                                                  : 0}});
  }
  Json hints = Json::array();
  const auto share = [&](const char* category) {
    const auto found = by_category.find(category);
    return found == by_category.end() || peak->allocated <= 0
               ? 0
               : static_cast<double>(found->second) / static_cast<double>(peak->allocated);
  };
  if (share("activation") > 0.3)
    hints.push_back(
        "activations dominate: recompute some layers (recompute.*), or split the sequence over "
        "context ranks");
  if (share("optimizer_state") > 0.3)
    hints.push_back("optimizer states dominate: shard them over the data-parallel ranks");
  if (share("gradient") > 0.3)
    hints.push_back("gradients dominate: shard them, or train fewer parts");
  for (const auto& row : rows)
    if (row["op"].get<std::string>().find("cross_entropy") != std::string::npos &&
        row["share"].get<double>() > 0.1)
      hints.push_back("the loss holds much of the peak: compute it in chunks");
  return {{"rank", f.rank},
          {"device", device_name(devices.front())},
          {"peak_ns", run.aligned(file, peak->ts_ns)},
          {"allocated", peak->allocated},
          {"reserved", peak->reserved},
          {"listed", listed},
          {"categories", shown_sums(by_category)},
          {"layers", layer_rows(by_module, peak->allocated)},
          {"rows", std::move(rows)},
          {"hints", std::move(hints)}};
}

Json category_rows(const Json& peak) {
  Json rows = Json::array();
  if (peak.contains("categories"))
    for (const auto& [name, bytes] : peak["categories"].items())
      rows.push_back({{"category", name}, {"bytes", bytes}});
  Json out{{"rank", peak["rank"]}, {"rows", std::move(rows)}};
  if (peak.contains("empty")) {
    out["empty"] = peak["empty"];
  } else {
    out["peak_ns"] = peak["peak_ns"];
    out["allocated"] = peak["allocated"];
  }
  return out;
}

Json memory_allocations_json(const Run& run, int file, int64_t offset, int64_t limit,
                             std::string_view sort) {
  const auto& f = run.files()[static_cast<size_t>(file)];
  const Trace& t = f.trace;
  const auto devices = memory_devices(t);
  if (devices.empty())
    return {{"rank", f.rank}, {"rows", Json::array()}, {"total", 0}, {"empty", kNothing}};
  auto list = allocations_of(t, devices.front().first, devices.front().second);
  if (sort == "-bytes" || sort.empty())
    std::ranges::stable_sort(list, std::ranges::greater(), &Allocation::bytes);
  Json rows = Json::array();
  const auto first = static_cast<size_t>(std::max<int64_t>(0, offset));
  for (size_t i = first;
       i < list.size() && i < first + static_cast<size_t>(std::max<int64_t>(0, limit)); ++i) {
    const auto& a = list[i];
    const bool begun = a.begin_ns != INT64_MIN, ended = a.end_ns != INT64_MAX;
    rows.push_back({{"address", fmt::format("0x{:x}", a.address)},
                    {"bytes", a.bytes},
                    {"category", a.category},
                    {"module", display_name(a.module)},
                    {"op", a.op == kNone ? "" : display_name(t.name(a.op))},
                    {"begin_ns", begun ? Json(run.aligned(file, a.begin_ns)) : Json(nullptr)},
                    {"end_ns", ended ? Json(run.aligned(file, a.end_ns)) : Json(nullptr)},
                    {"duration_ns", begun && ended ? Json(a.end_ns - a.begin_ns) : Json(nullptr)},
                    {"id", a.op == kNone ? Json(nullptr) : Json(slice_id(file, a.op))}});
  }
  return {{"rank", f.rank},
          {"device", device_name(devices.front())},
          {"rows", std::move(rows)},
          {"total", list.size()}};
}

}  // namespace triptych::insight

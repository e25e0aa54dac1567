#include "insight/operators.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <unordered_map>

#include "insight/statistics.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"
#include "insight/work_class.h"

namespace triptych::insight {
namespace {

bool contains_any_case(std::string_view text, std::string_view part) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  const auto same = [&](char a, char b) { return lower(a) == lower(b); };
  return part.empty() ||
         std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end();
}

bool below(std::string_view module, std::string_view root) {
  return root.empty() ||
         (module.starts_with(root) && (module.size() == root.size() || module[root.size()] == '.'));
}

/// Window of a step on the host of one trace.
struct Window {
  int64_t begin = INT64_MIN, end = INT64_MAX;
  bool has(int64_t at) const { return at >= begin && at < end; }
};
Window window_of(const Trace& t, std::optional<int64_t> step) {
  if (!step || *step < 0) return {};
  for (const auto& s : t.steps())
    if (s.number == *step) return {s.begin_ns, s.end_ns};
  return {0, 0};
}

/// Module paths, worked out once per scope.
class Modules {
 public:
  explicit Modules(const Trace& t) : t_(t) {}
  const std::string& of(EventId e) {
    // All events below one scope share its path: remember by parent.
    const EventId key = t_.parent(e) == kNone ? e : t_.parent(e);
    const bool own = t_.name(e).starts_with("nn.Module: ");
    const Category c = t_.category(e);
    if (own || c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset ||
        t_.parent(e) == kNone)
      return scratch_ = module_of(t_, e);
    const auto [at, added] = by_parent_.try_emplace(key);
    if (added) at->second = module_of(t_, key);
    return at->second;
  }

 private:
  const Trace& t_;
  std::unordered_map<EventId, std::string> by_parent_;
  std::string scratch_;
};

/// Device time of every operator: what was launched inside it (total), and not inside an inner
/// operator (self).
struct DeviceTimes {
  std::vector<int64_t> total, self;
};
DeviceTimes device_times(const Trace& t) {
  DeviceTimes out{std::vector<int64_t>(t.num_events()), std::vector<int64_t>(t.num_events())};
  if (!t.has_device_work()) return out;
  for (const Track& track : t.tracks()) {
    if (!track.is_device()) continue;
    for (EventId k = track.first_event; k < track.first_event + track.num_events; ++k) {
      const Category c = t.category(k);
      if (c != Category::kKernel && c != Category::kMemcpy && c != Category::kMemset) continue;
      const EventId op = op_of(t, k);
      if (op == kNone) continue;
      out.self[op] += t.dur(k);
      for (EventId p = op; p != kNone; p = t.parent(p)) out.total[p] += t.dur(k);
    }
  }
  return out;
}

bool inside_same_name(const Trace& t, EventId e) {
  for (EventId p = t.parent(e); p != kNone; p = t.parent(p))
    if (t.name_id(p) == t.name_id(e)) return true;
  return false;
}

std::string stack_of(const Trace& t, EventId e) {
  std::string stack;
  int depth = 0;
  for (EventId p = t.parent(e); p != kNone && depth < 24; p = t.parent(p), ++depth)
    stack = display_name(t.name(p)) + (stack.empty() ? "" : ";" + stack);
  return stack;
}

}  // namespace

double KernelRow::std_ns() const {
  if (calls < 2) return 0;
  const double n = static_cast<double>(calls), sum = static_cast<double>(total_ns);
  return std::sqrt(std::max(0.0, (squares - sum * sum / n) / (n - 1)));
}

std::vector<OpRow> op_rows(const Run& run, const RowFilter& filter, GroupBy group) {
  std::map<std::string, OpRow> rows;
  for (const int file : filter.files) {
    const Trace& t = run.files()[static_cast<size_t>(file)].trace;
    const auto self = self_times(t);
    const auto device = device_times(t);
    const Window window = window_of(t, filter.step);
    Modules modules(t);
    std::unordered_map<uint64_t, OpRow*> fast;  // by name and shapes
    for (EventId e = 0; e < t.num_events(); ++e) {
      if (t.category(e) != Category::kCpuOp || !window.has(t.ts(e))) continue;
      if (t.name(e).starts_with("ProfilerStep#")) continue;  // torch_npu's marks of steps
      if (!filter.name.empty() && !contains_any_case(t.name(e), filter.name)) continue;
      if (!filter.module.empty() && !below(modules.of(e), filter.module)) continue;
      const auto* detail = t.op(e);
      const StringId shapes = detail ? detail->shapes : 0;
      OpRow* row = nullptr;
      if (group == GroupBy::kName || group == GroupBy::kShapes) {
        auto& slot =
            fast[(uint64_t{t.name_id(e)} << 32) | (group == GroupBy::kShapes ? shapes : 0)];
        if (!slot) {
          std::string key = display_name(t.name(e));
          if (group == GroupBy::kShapes) key += " " + display_name(t.string(shapes));
          slot = &rows[key];
          slot->key = key;
        }
        row = slot;
      } else {
        std::string key = display_name(t.name(e)) + " @ " +
                          (group == GroupBy::kModule ? modules.of(e) : stack_of(t, e));
        row = &rows[key];
        row->key = key;
      }
      if (row->calls == 0) {
        row->name = display_name(t.name(e));
        if (group == GroupBy::kShapes) row->shapes = display_name(t.string(shapes));
        if (group == GroupBy::kModule) row->module = modules.of(e);
        if (group == GroupBy::kStack) row->module = stack_of(t, e);
        row->op_class = std::string(kernel_class_name(kernel_class(t.name(e))));
      }
      ++row->calls;
      const bool outer = !inside_same_name(t, e);
      if (outer) row->total_ns += t.dur(e), row->device_total_ns += device.total[e];
      row->self_ns += self[e];
      row->device_self_ns += device.self[e];
      row->min_ns = std::min(row->min_ns, t.dur(e));
      row->max_ns = std::max(row->max_ns, t.dur(e));
      row->durations.push_back(static_cast<float>(t.dur(e)));
      if (shapes) row->flops += flops_of(t.name(e), t.string(shapes), t.string(detail->concrete));
      if (run.aligned(file, t.ts(e)) < row->first_ns) {
        row->first_ns = run.aligned(file, t.ts(e));
        row->first_id = slice_id(file, e);
      }
    }
  }
  std::vector<OpRow> out;
  for (auto& [key, row] : rows) out.push_back(std::move(row));
  std::ranges::stable_sort(out, std::ranges::greater(),
                           [](const OpRow& r) { return std::max(r.self_ns, r.device_self_ns); });
  return out;
}

std::vector<KernelRow> kernel_rows(const Run& run, const RowFilter& filter, bool by_module) {
  std::map<std::string, KernelRow> rows;
  for (const int file : filter.files) {
    const Trace& t = run.files()[static_cast<size_t>(file)].trace;
    const auto launched = device_times(t);
    const Window window = window_of(t, filter.step);
    for (const Track& track : t.tracks()) {
      if (!track.is_device()) continue;
      for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
        const KernelDetail* k = t.kernel(e);
        const Category c = t.category(e);
        if (c != Category::kKernel && c != Category::kMemcpy && c != Category::kMemset) continue;
        if (!window.has(t.linked(e) != kNone ? t.ts(t.linked(e)) : t.ts(e))) continue;
        if (!filter.name.empty() && !contains_any_case(t.name(e), filter.name)) continue;
        std::string module;
        if (by_module || !filter.module.empty()) module = module_of(t, e);
        if (!below(module, filter.module)) continue;
        const std::string name = display_name(short_name(t.name(e)));
        auto& row = rows[by_module ? name + " @ " + module : name];
        if (row.calls == 0) {
          row.name = name;
          row.module = module;
          row.kernel_class = std::string(kernel_class_name(kernel_class(t.name(e))));
          const EventId op = op_of(t, e);
          if (op != kNone) row.op = display_name(t.name(op));
          row.first_id = slice_id(file, e);
          if (k)
            std::copy(k->grid, k->grid + 3, row.grid), std::copy(k->block, k->block + 3, row.block);
        }
        const auto dur = static_cast<double>(t.dur(e));
        ++row.calls;
        row.total_ns += t.dur(e);
        row.squares += dur * dur;
        row.min_ns = std::min(row.min_ns, t.dur(e));
        row.max_ns = std::max(row.max_ns, t.dur(e));
        if (k && k->bytes > 0) row.bytes += k->bytes;
        if (const EventId op = op_of(t, e); op != kNone && t.op(op) && launched.total[op] > 0)
          row.flops +=
              flops_of(t.name(op), t.string(t.op(op)->shapes), t.string(t.op(op)->concrete)) * dur /
              static_cast<double>(launched.total[op]);
        if (k && k->occupancy_percent >= 0) {
          row.occupancy_time += static_cast<double>(k->occupancy_percent) * dur;
          row.occupancy_weight += dur;
        }
      }
    }
  }
  std::vector<KernelRow> out;
  for (auto& [key, row] : rows) out.push_back(std::move(row));
  std::ranges::stable_sort(out, std::ranges::greater(), &KernelRow::total_ns);
  return out;
}

std::vector<ModuleRow> module_rows(const Run& run, const RowFilter& filter) {
  std::map<std::string, ModuleRow> rows;
  constexpr std::string_view kPrefix = "nn.Module: ";
  for (const int file : filter.files) {
    const Trace& t = run.files()[static_cast<size_t>(file)].trace;
    const Window window = window_of(t, filter.step);
    for (EventId e = 0; e < t.num_events(); ++e) {
      if (!t.name(e).starts_with(kPrefix) || t.tracks()[t.track_of(e)].is_device() ||
          !window.has(t.ts(e)))
        continue;
      const std::string module(t.name(e).substr(kPrefix.size()));
      if (!below(module, filter.module)) continue;
      auto& row = rows[module];
      row.module = display_name(module);
      ++row.calls;
      row.total_ns += t.dur(e);
      row.self_ns += t.dur(e);
      for (EventId p = t.parent(e); p != kNone; p = t.parent(p)) {
        if (!t.name(p).starts_with(kPrefix)) continue;
        if (window.has(t.ts(p)))
          rows[std::string(t.name(p).substr(kPrefix.size()))].self_ns -= t.dur(e);
        break;
      }
    }
    for (const Track& track : t.tracks()) {
      if (!track.is_device()) continue;
      for (EventId k = track.first_event; k < track.first_event + track.num_events; ++k) {
        const EventId launch = t.linked(k);
        if (launch == kNone || !window.has(t.ts(launch)) || t.work(k) == Work::kNone) continue;
        bool innermost = true;
        for (EventId p = launch; p != kNone; p = t.parent(p)) {
          if (!t.name(p).starts_with(kPrefix)) continue;
          const auto at = rows.find(std::string(t.name(p).substr(kPrefix.size())));
          if (at == rows.end()) continue;
          at->second.device_total_ns += t.dur(k);
          if (innermost) at->second.device_self_ns += t.dur(k);
          innermost = false;
        }
      }
    }
  }
  std::vector<ModuleRow> out;
  for (auto& [key, row] : rows) out.push_back(std::move(row));
  std::ranges::stable_sort(out, std::ranges::greater(), [](const ModuleRow& r) {
    return std::max(r.self_ns, r.device_self_ns);
  });
  return out;
}

Json to_json(const OpRow& r, double step_total_ns) {
  const auto calls = static_cast<double>(std::max<int64_t>(1, r.calls));
  std::vector<double> durations(r.durations.begin(), r.durations.end());
  Json spark = Json::array();
  for (size_t i = 0; i < 32 && i < r.durations.size(); ++i)
    spark.push_back(r.durations[r.durations.size() <= 32 ? i : i * r.durations.size() / 32]);
  const double seconds =
      static_cast<double>(r.device_total_ns > 0 ? r.device_total_ns : r.total_ns) / 1e9;
  Json out{{"key", r.key},
           {"name", r.name},
           {"class", r.op_class},
           {"calls", r.calls},
           {"total_ns", r.total_ns},
           {"self_ns", r.self_ns},
           {"avg_ns", std::accumulate(durations.begin(), durations.end(), 0.0) / calls},
           {"min_ns", r.min_ns},
           {"max_ns", r.max_ns},
           {"p50_ns", quantile(durations, 0.5)},
           {"p95_ns", quantile(durations, 0.95)},
           {"share", step_total_ns > 0 ? static_cast<double>(r.self_ns) / step_total_ns : 0},
           {"device_total_ns", r.device_total_ns},
           {"device_self_ns", r.device_self_ns},
           {"flops", r.flops},
           {"flops_per_s", seconds > 0 ? r.flops / seconds : 0},
           {"first_ns", r.first_ns},
           {"first_id", r.first_id},
           {"durations", std::move(spark)}};
  if (!r.shapes.empty()) out["shapes"] = r.shapes;
  if (!r.module.empty()) out["module"] = r.module;
  return out;
}

Json to_json(const KernelRow& r, double device_total_ns) {
  Json out{{"name", r.name},
           {"class", r.kernel_class},
           {"calls", r.calls},
           {"total_ns", r.total_ns},
           {"avg_ns",
            static_cast<double>(r.total_ns) / static_cast<double>(std::max<int64_t>(1, r.calls))},
           {"min_ns", r.min_ns},
           {"max_ns", r.max_ns},
           {"std_ns", r.std_ns()},
           {"share", device_total_ns > 0 ? static_cast<double>(r.total_ns) / device_total_ns : 0},
           {"occupancy_percent",
            r.occupancy_weight > 0 ? Json(r.occupancy_time / r.occupancy_weight) : Json(nullptr)},
           {"grid", {r.grid[0], r.grid[1], r.grid[2]}},
           {"block", {r.block[0], r.block[1], r.block[2]}},
           {"bytes", r.bytes},
           {"flops", r.flops},
           {"flops_per_s", r.total_ns > 0 ? r.flops / (static_cast<double>(r.total_ns) / 1e9) : 0},
           {"op", r.op},
           {"module", display_name(r.module)},
           {"first_id", r.first_id}};
  return out;
}

Json to_json(const ModuleRow& r) {
  return {{"module", r.module},
          {"calls", r.calls},
          {"total_ns", r.total_ns},
          {"self_ns", std::max<int64_t>(0, r.self_ns)},
          {"device_total_ns", r.device_total_ns},
          {"device_self_ns", r.device_self_ns}};
}

}  // namespace triptych::insight

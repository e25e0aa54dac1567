#include "insight/queries.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.h"
#include "insight/alignment.h"
#include "insight/communication.h"
#include "insight/critical_path.h"
#include "insight/findings.h"
#include "insight/flame.h"
#include "insight/flops.h"
#include "insight/idle.h"
#include "insight/layout.h"
#include "insight/memory_view.h"
#include "insight/operators.h"
#include "insight/pipeline.h"
#include "insight/scalars.h"
#include "insight/scope.h"
#include "insight/snapshot.h"
#include "insight/statistics.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {

struct Queries::Cache {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<const CommCalls>> calls;
  std::map<int64_t, std::shared_ptr<const std::vector<StepTimes>>> steps;
  std::map<int64_t, std::shared_ptr<const std::vector<Finding>>> findings;
  std::map<int64_t, std::shared_ptr<const Json>> snapshots;  // by place in the run's list
};

namespace {

/// Computes once per span; others wait for the first.
template <class T, class F>
std::shared_ptr<const T> once(std::mutex& mutex, std::map<int64_t, std::shared_ptr<const T>>& cache,
                              int64_t span, F&& make) {
  const std::lock_guard lock(mutex);
  auto& slot = cache[span];
  if (!slot) slot = std::make_shared<const T>(make());
  return slot;
}

std::vector<StepTimes> chosen(const std::vector<StepTimes>& all, const Scope& scope) {
  std::vector<StepTimes> out;
  for (const auto& s : all)
    if ((!scope.rank || s.rank == *scope.rank) && (!scope.step || s.step == *scope.step))
      out.push_back(s);
  return out;
}

/// Sorts rows by a column, "-" in front for descending; then cuts out a page.
Json page(Json rows, const TableQuery& query) {
  std::vector<Json> list;
  for (auto& row : rows) list.push_back(std::move(row));
  if (!query.sort.empty()) {
    const bool descending = query.sort[0] == '-';
    const std::string column = query.sort.substr(descending ? 1 : 0);
    std::ranges::stable_sort(list, [&](const Json& a, const Json& b) {
      if (!a.contains(column) || !b.contains(column)) return false;
      return descending ? b[column] < a[column] : a[column] < b[column];
    });
  }
  Json out = Json::array();
  const auto first = static_cast<size_t>(std::max<int64_t>(0, query.offset));
  const auto limit = static_cast<size_t>(std::max<int64_t>(0, query.limit));
  for (size_t i = first; i < list.size() && i - first < limit; ++i)
    out.push_back(std::move(list[i]));
  return {{"total", list.size()}, {"offset", first}, {"rows", std::move(out)}};
}

RowFilter filter_of(const Run& run, const TableQuery& query) {
  return {files_of(run, query.scope), query.scope.step, query.module, query.filter};
}

GroupBy group_of(const std::string& name) {
  if (name == "shapes") return GroupBy::kShapes;
  if (name == "module") return GroupBy::kModule;
  if (name == "stack") return GroupBy::kStack;
  require(name.empty() || name == "name", "group = ", name, ": name, shapes, module or stack");
  return GroupBy::kName;
}

/// Mean over steps of every number: of means, unlike medians, the parts still add up to the total.
Json mean_row(const std::vector<const StepTimes*>& rows) {
  Json out = Json::object();  // sums at first
  std::map<std::string, double> counts;
  for (const auto* s : rows) {
    const Json row = to_json(*s);
    for (const auto& [key, value] : row.items()) {
      if (key == "rank" || key == "step" || key == "begin_ns" || !value.is_number()) continue;
      out[key] = out.value(key, 0.0) + value.get<double>();
      ++counts[key];
    }
  }
  for (const auto& [key, count] : counts) out[key] = out[key].get<double>() / count;
  return out;
}

}  // namespace

Queries::Queries(std::shared_ptr<const Run> run)
    : run_(std::move(run)), cache_(std::make_unique<Cache>()) {}
Queries::~Queries() = default;

std::shared_ptr<const CommCalls> Queries::calls_of(int64_t span) const {
  return once(cache_->mutex, cache_->calls, span, [&] { return match_calls(*run_, span); });
}

std::shared_ptr<const std::vector<StepTimes>> Queries::steps_of(int64_t span) const {
  return once(cache_->mutex, cache_->steps, span, [&] { return step_times(*run_, span); });
}

Json Queries::summary(const Scope& scope, std::string_view by) const {
  const auto all = chosen(*steps_of(scope.span), scope);
  Json rows = Json::array();
  if (by == "step" || by == "both" || by.empty()) {
    for (const auto& s : all) rows.push_back(to_json(s));
  } else {
    require(by == "rank", "by = ", by, ": rank or step");
    std::map<int64_t, std::vector<const StepTimes*>> ranks;
    for (const auto& s : all) ranks[s.rank].push_back(&s);
    for (const auto& [rank, list] : ranks) {
      Json row = mean_row(list);
      row["rank"] = rank;
      row["steps"] = list.size();
      rows.push_back(std::move(row));
    }
  }
  const Peaks peaks = peaks_of(*run_);
  for (auto& row : rows) {
    const auto ns = static_cast<int64_t>(row["total_ns"].get<double>());
    if (const auto mfu = model_flops_utilization(*run_, peaks, ns)) row["mfu"] = *mfu;
  }
  Json out{{"by", by},
           {"rows", std::move(rows)},
           {"columns",
            {"compute_only_ns", "overlapped_ns", "exposed_comm_ns", "free_ns", "preparing_ns"}}};
  if (out["rows"].empty())
    out["empty"] = "no trace of this rank and step; the run recorded no window there";
  return out;
}

Json Queries::findings(const Scope& scope) const {
  const auto calls = calls_of(scope.span);
  const auto steps = steps_of(scope.span);
  const auto list = once(cache_->mutex, cache_->findings, scope.span,
                         [&] { return find_problems(*run_, *calls, *steps, scope.span); });
  Json findings = Json::array(), advice = Json::array();
  for (const auto& f : *list) {
    if (scope.rank && f.rank && *f.rank != *scope.rank) continue;
    (f.advice ? advice : findings).push_back(to_json(f));
  }
  Json rows = findings;
  return {
      {"findings", std::move(findings)}, {"advice", std::move(advice)}, {"rows", std::move(rows)}};
}

Json Queries::ops(const TableQuery& query) const {
  const auto list = op_rows(*run_, filter_of(*run_, query), group_of(query.group));
  double total = 0;
  for (const auto& s : chosen(*steps_of(query.scope.span), query.scope))
    total += static_cast<double>(s.total);
  Json rows = Json::array();
  const Peaks peaks = peaks_of(*run_);
  for (const auto& r : list) {
    rows.push_back(to_json(r, total));
    add_share_of_peak(rows.back(), peaks);
  }
  Json out = page(std::move(rows), query);
  out.update(to_json(peaks));
  if (list.empty()) out["empty"] = "no operators were recorded; set profile.with_cpu = true";
  return out;
}

Json Queries::kernels(const TableQuery& query) const {
  const auto list = kernel_rows(*run_, filter_of(*run_, query), query.group == "module");
  double total = 0;
  for (const auto& r : list) total += static_cast<double>(r.total_ns);
  Json rows = Json::array();
  const Peaks peaks = peaks_of(*run_);
  for (const auto& r : list) {
    rows.push_back(to_json(r, total));
    add_share_of_peak(rows.back(), peaks);
  }
  Json out = page(std::move(rows), query);
  out.update(to_json(peaks));
  if (list.empty()) out["empty"] = "no device work was recorded; on a CPU run see the operators";
  return out;
}

Json Queries::modules(const TableQuery& query) const {
  const auto list = module_rows(*run_, filter_of(*run_, query));
  Json rows = Json::array();
  for (const auto& r : list) rows.push_back(to_json(r));
  Json out = page(std::move(rows), query);
  if (list.empty()) out["empty"] = "no module scopes were recorded; profile.level = 1 records them";
  return out;
}

Json Queries::comm_groups(const Scope& scope) const {
  const auto calls = calls_of(scope.span);
  return comm_groups_json(scope.step ? calls_of_step(*run_, *calls, *scope.step) : *calls);
}
Json Queries::comm_matrix(const Scope& scope, std::string_view group, std::string_view type) const {
  const auto calls = calls_of(scope.span);
  return comm_matrix_json(*run_, scope.step ? calls_of_step(*run_, *calls, *scope.step) : *calls,
                          group, type);
}
Json Queries::comm_calls(const TableQuery& query, std::string_view group,
                         std::string_view type) const {
  const auto calls = calls_of(query.scope.span);
  return comm_calls_json(
      query.scope.step ? calls_of_step(*run_, *calls, *query.scope.step) : *calls, group, type,
      query.offset, query.limit, query.sort);
}
Json Queries::comm_ranks(const Scope& scope, std::string_view group) const {
  const auto calls = calls_of(scope.span);
  return comm_ranks_json(scope.step ? calls_of_step(*run_, *calls, *scope.step) : *calls, group);
}
Json Queries::comm_links(const Scope& scope) const {
  const auto calls = calls_of(scope.span);
  return comm_links_json(*run_, scope.step ? calls_of_step(*run_, *calls, *scope.step) : *calls);
}

Json Queries::comm_alignment(const Scope& scope) const {
  Json rows = Json::array(), ranks = Json::array();
  for (const auto& c : estimate_clocks(*run_, *calls_of(scope.span), scope.span))
    rows.push_back({{"host", c.host},
                    {"remaining_offset_ns", c.offset_ns},
                    {"drift", c.drift},
                    {"residual_median_ns", c.residual_median_ns},
                    {"residual_p95_ns", c.residual_p95_ns},
                    {"calls", c.calls}});
  for (const int f : run_->files_of_span(scope.span)) {
    const auto& file = run_->files()[static_cast<size_t>(f)];
    ranks.push_back(
        {{"rank", file.rank}, {"host", host_of(file.trace)}, {"offset_ns", file.offset_ns}});
  }
  Json out{{"rows", std::move(rows)}, {"ranks", std::move(ranks)}};
  if (out["rows"].empty()) out["empty"] = no_communication_text();
  return out;
}

Json Queries::parallel_layout() const { return layout_json(*run_, *calls_of(-1)); }

Json Queries::pipeline(const Scope& scope) const {
  return pipeline_json(*run_, scope.span, scope.step);
}
Json Queries::flame(const Scope& scope, const FlameQuery& query) const {
  return flame_json(*run_, files_of(*run_, scope), scope.step, query);
}
Json Queries::idle(const Scope& scope) const {
  return idle_json(*run_, files_of(*run_, scope), scope.step);
}
Json Queries::critical_path(const Scope& scope) const {
  return critical_path_json(*run_, one_file(*run_, scope), scope.step);
}
std::shared_ptr<const Json> Queries::snapshot_at(int64_t number) const {
  return once(cache_->mutex, cache_->snapshots, number,
              [&] { return snapshot_json(run_->snapshots()[static_cast<size_t>(number)]); });
}

/// Where no trace of the rank holds allocations, what its first snapshot knows of them: its "curve"
/// or "peak".
std::optional<Json> Queries::from_snapshot(const Scope& scope, const char* part) const {
  const auto files = files_of(*run_, scope);
  if (!files.empty() &&
      !memory_devices(run_->files()[static_cast<size_t>(files.front())].trace).empty())
    return std::nullopt;
  for (size_t i = 0; i < run_->snapshots().size(); ++i) {
    try {
      const auto snapshot = snapshot_at(static_cast<int64_t>(i));
      const auto rank = snapshot->at("about").value("rank", int64_t{-1});
      if (scope.rank && rank != *scope.rank) continue;
      auto document = snapshot->at(part);
      document["rank"] = rank;
      document["device"] = valid_utf8(run_->snapshots()[i].filename().string());
      return document;
    } catch (const Error&) {
      continue;  // its own page says what is wrong with it
    }
  }
  return std::nullopt;
}

Json Queries::memory_curve(const Scope& scope, int64_t points) const {
  if (auto document = from_snapshot(scope, "curve")) return *document;
  return memory_curve_json(*run_, one_file(*run_, scope), points);
}
Json Queries::memory_categories(const Scope& scope) const {
  return category_rows(memory_peak(scope));
}
Json Queries::memory_peak(const Scope& scope) const {
  if (auto document = from_snapshot(scope, "peak")) return *document;
  return memory_peak_json(*run_, one_file(*run_, scope));
}
Json Queries::memory_allocations(const TableQuery& query) const {
  return memory_allocations_json(*run_, one_file(*run_, query.scope), query.offset, query.limit,
                                 query.sort);
}

Json Queries::memory_snapshot(int64_t number) const {
  const auto count = static_cast<int64_t>(run_->snapshots().size());
  if (count == 0)
    return {{"devices", Json::array()},
            {"rows", Json::array()},
            {"empty", "no memory snapshot in this run; set profile.memory.windows to record one"}};
  require(number >= 0 && number < count, "snapshot ", number, ": there are ", count);
  return *snapshot_at(number);
}

Json Queries::scalars(const std::vector<std::string>& tags) const {
  if (!run_->metrics_file())
    return {{"tags", Json::array()},
            {"steps", Json::object()},
            {"values", Json::object()},
            {"empty", "no metrics.jsonl here; open the run's output folder instead of its traces"}};
  return scalars_json(*run_->metrics_file(), tags);
}

}  // namespace triptych::insight

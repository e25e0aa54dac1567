#include "insight/queries.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "base/error.h"
#include "insight/alignment.h"
#include "insight/communication.h"
#include "insight/critical_path.h"
#include "insight/findings.h"
#include "insight/idle.h"
#include "insight/layout.h"
#include "insight/memory_view.h"
#include "insight/operators.h"
#include "insight/pipeline.h"
#include "insight/scalars.h"
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

std::vector<int> files_of(const Run& run, const Scope& scope) {
  auto files = run.files_of_span(scope.span);
  if (scope.rank)
    std::erase_if(files,
                  [&](int f) { return run.files()[static_cast<size_t>(f)].rank != *scope.rank; });
  return files;
}

/// The rank asked for, or the first.
int one_file(const Run& run, const Scope& scope) {
  const auto files = files_of(run, scope);
  if (files.empty()) {
    if (scope.rank) fail("rank ", *scope.rank, ": has no readable trace in this run");
    fail("no trace in this run could be read");
  }
  return files.front();
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

/// Median over steps of every sum, for one rank or over all ranks of one step.
Json median_row(const std::vector<const StepTimes*>& rows) {
  Json out = Json::object();
  const Json first = to_json(*rows.front());
  for (const auto& [key, value] : first.items()) {
    if (key == "rank" || key == "step" || key == "begin_ns" || !value.is_number()) continue;
    double sum = 0;
    for (const auto* s : rows) sum += to_json(*s)[key].get<double>();
    out[key] = sum / static_cast<double>(rows.size());
  }
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

Json Queries::runs() const {
  Json spans = Json::array(), files = Json::array();
  int64_t end = 0;
  bool device = false;
  for (const int64_t span : run_->spans()) {
    Json ranks = Json::array(), steps = Json::array();
    for (const int f : run_->files_of_span(span)) {
      const auto& file = run_->files()[static_cast<size_t>(f)];
      ranks.push_back(file.rank);
      if (steps.empty())
        for (const auto& s : file.trace.steps()) steps.push_back(s.number);
    }
    spans.push_back({{"span", span}, {"ranks", std::move(ranks)}, {"steps", std::move(steps)}});
  }
  Json metadata = Json::object();
  for (size_t f = 0; f < run_->files().size(); ++f) {
    const auto& file = run_->files()[f];
    Json row{{"file", f},
             {"path", valid_utf8(file.path.string())},
             {"rank", file.rank},
             {"span", file.span},
             {"bytes", file.bytes},
             {"loaded", file.loaded},
             {"error", valid_utf8(file.error)}};
    if (file.loaded && file.error.empty()) {
      row["events"] = file.trace.num_events();
      row["truncated"] = file.trace.truncated();
      row["warnings"] = file.trace.warnings();
      row["host"] = host_of(file.trace);
      end = std::max(end, run_->aligned(static_cast<int>(f), file.trace.end_ns()));
      device = device || file.trace.has_device_work();
      if (metadata.empty()) metadata = file.trace.metadata();
    }
    files.push_back(std::move(row));
  }
  Json snapshots = Json::array();
  for (const auto& path : run_->snapshots())
    snapshots.push_back(valid_utf8(path.filename().string()));
  Json run{{"name", valid_utf8(run_->name())},
           {"root", valid_utf8(run_->root().string())},
           {"ranks", run_->ranks()},
           {"spans", std::move(spans)},
           {"world_size", run_->world_size()},
           {"metadata", std::move(metadata)},
           {"model", run_->model_info()},
           {"files", std::move(files)},
           {"origin_ns", std::to_string(run_->origin_ns())},
           {"duration_ns", end},
           {"device", device ? "device" : "cpu"},
           {"snapshots", std::move(snapshots)},
           {"metrics", run_->metrics_file().has_value()},
           {"warnings", run_->warnings()}};
  return {{"runs", Json::array({std::move(run)})}};
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
      Json row = median_row(list);
      row["rank"] = rank;
      row["steps"] = list.size();
      rows.push_back(std::move(row));
    }
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
  for (const auto& r : list) rows.push_back(to_json(r, total));
  Json out = page(std::move(rows), query);
  if (list.empty()) out["empty"] = "no operators were recorded; set profile.with_cpu = true";
  return out;
}

Json Queries::kernels(const TableQuery& query) const {
  const auto list = kernel_rows(*run_, filter_of(*run_, query), query.group == "module");
  double total = 0;
  for (const auto& r : list) total += static_cast<double>(r.total_ns);
  Json rows = Json::array();
  for (const auto& r : list) rows.push_back(to_json(r, total));
  Json out = page(std::move(rows), query);
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
  for (const auto& c : estimate_clocks(*run_, scope.span))
    rows.push_back({{"host", c.host},
                    {"remaining_offset_ns", c.offset_ns},
                    {"drift", c.drift},
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

Json Queries::diagnostics() const {
  Json rows = Json::array();
  const auto add = [&](const TraceFile* file, std::string_view what, const std::string& words) {
    rows.push_back({{"what", what},
                    {"rank", file ? Json(file->rank) : Json(nullptr)},
                    {"file", file ? valid_utf8(file->path.filename().string()) : ""},
                    {"words", valid_utf8(words)}});
  };
  for (const auto& warning : run_->warnings()) add(nullptr, "run", warning);
  for (const auto& file : run_->files()) {
    if (!file.error.empty()) add(&file, "unreadable", file.error);
    if (file.loaded && file.error.empty())
      for (const auto& warning : file.trace.warnings()) add(&file, "repaired", warning);
  }
  const auto calls = calls_of(-1);
  for (const auto& mismatch : calls->mismatches) add(nullptr, "mismatched collective", mismatch);
  return {{"rows", std::move(rows)}, {"alignment", comm_alignment(Scope{})}};
}

Json Queries::summary_document(const Scope& scope, int64_t top) const {
  Json facts = runs()["runs"][0];
  facts.erase("metadata");
  const auto found = findings(scope);
  Json out{{"run", std::move(facts)},
           {"steps", summary(scope, "step")["rows"]},
           {"ranks", summary(scope, "rank")["rows"]},
           {"findings", found["findings"]},
           {"advice", found["advice"]}};
  TableQuery query{.scope = scope, .limit = top};
  out["ops"] = ops(query)["rows"];
  out["kernels"] = kernels(query)["rows"];
  out["modules"] = modules(query)["rows"];
  out["communication"] = {{"groups", comm_groups(scope)["rows"]},
                          {"links", comm_links(scope)["rows"]},
                          {"ranks", comm_ranks(scope, "")["rows"]},
                          {"mismatches", calls_of(-1)->mismatches}};
  const auto idle_document = idle(scope);
  out["idle"] = {{"rows", idle_document["rows"]}, {"causes", idle_document["causes"]}};
  const auto pipe = pipeline(scope);
  if (!pipe.contains("empty")) {
    Json stages = Json::array();
    for (auto stage : pipe["stages"]) {
      stage.erase("actions");
      stage.erase("gaps");
      stages.push_back(std::move(stage));
    }
    out["pipeline"] = {{"step", pipe["step"]},
                       {"bubble_share", pipe["bubble_share"]},
                       {"theory", pipe["theory"]},
                       {"excess", pipe["excess"]},
                       {"stages", std::move(stages)}};
  }
  Json memory = Json::array();
  for (const int f : files_of(*run_, scope)) {
    auto peak = memory_peak_json(*run_, f);
    if (!peak.contains("empty")) memory.push_back(std::move(peak));
  }
  // Recorded without a trace, or as it is known by the run itself.
  for (size_t i = 0; i < run_->snapshots().size(); ++i) {
    const auto& path = run_->snapshots()[i];
    try {
      const auto held = snapshot_at(static_cast<int64_t>(i));
      const auto& snapshot = *held;
      auto peak = snapshot["peak"];
      peak["rank"] = snapshot["about"].value("rank", int64_t{-1});
      peak["snapshot"] = valid_utf8(path.filename().string());
      if (peak["layers"].size() > static_cast<size_t>(top))
        peak["layers"].erase(peak["layers"].begin() + top, peak["layers"].end());
      if (peak["rows"].size() > static_cast<size_t>(top))
        peak["rows"].erase(peak["rows"].begin() + top, peak["rows"].end());
      memory.push_back(std::move(peak));
    } catch (const Error& error) {
      out["unreadable"].push_back(valid_utf8(error.what()));
    }
  }
  out["memory"] = std::move(memory);
  out["clocks"] = comm_alignment(scope)["ranks"];
  return out;
}

}  // namespace triptych::insight

// Answers about a run as a whole.
#include <algorithm>

#include "base/error.h"
#include "insight/alignment.h"
#include "insight/communication.h"
#include "insight/memory_view.h"
#include "insight/queries.h"
#include "insight/scope.h"
#include "insight/snapshot.h"
#include "insight/tolerant_json.h"

namespace triptych::insight {

std::vector<int> files_of(const Run& run, const Scope& scope) {
  auto files = run.files_of_span(scope.span);
  if (scope.rank)
    std::erase_if(files,
                  [&](int f) { return run.files()[static_cast<size_t>(f)].rank != *scope.rank; });
  return files;
}

int one_file(const Run& run, const Scope& scope) {
  const auto files = files_of(run, scope);
  if (files.empty()) {
    if (scope.rank) fail("rank ", *scope.rank, ": has no readable trace in this run");
    fail("no trace in this run could be read");
  }
  return files.front();
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

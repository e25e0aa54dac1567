#include <charconv>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/hash.h"
#include "insight/assets.h"
#include "insight/flame.h"
#include "insight/metrics_tail.h"
#include "insight/timeline.h"
#include "insight/viewer_state.h"

namespace triptych::insight {
namespace {

using Route = std::function<Json(const Queries&, const HttpRequest&)>;

/// "1,2,3" as numbers. @throws UsageError when it is anything else, or longer than `limit`.
template <class T>
std::vector<T> numbers(const HttpRequest& request, std::string_view name, size_t limit) {
  const std::string text = request.text(name);
  std::vector<T> list;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    T value{};
    const auto [next, error] = std::from_chars(at, end, value);
    require<UsageError>(
        error == std::errc() && (next == end || *next == ',') && list.size() < limit, "parameter '",
        name, "' must be up to ", limit, " numbers with commas between");
    list.push_back(value);
    at = next == end ? end : next + 1;
  }
  return list;
}

Scope scope_of(const HttpRequest& request) {
  Scope scope;
  scope.span = request.integer("span", -1, -1);
  if (!request.text("rank").empty()) scope.rank = request.integer("rank", 0);
  if (!request.text("step").empty()) scope.step = request.integer("step", 0);
  return scope;
}

TableQuery table_of(const HttpRequest& request) {
  TableQuery query;
  query.scope = scope_of(request);
  query.group = request.text("group", "name");
  query.module = request.text("module");
  query.sort = request.text("sort");
  query.filter = request.text("filter");
  query.offset = request.integer("offset", 0, 0);
  query.limit = request.integer("limit", 100, 1, 100000);
  return query;
}

/// [t0, t1) in ns since the run's origin; far outside is harmless but not representable sums are
/// not.
std::pair<int64_t, int64_t> range_of(const HttpRequest& request) {
  constexpr int64_t kFar = int64_t{1} << 60;
  const int64_t t0 = request.integer("t0", -kFar, -kFar, kFar);
  const int64_t t1 = request.integer("t1", kFar, -kFar, kFar);
  require<UsageError>(t0 < t1, "parameter 't1' must be above 't0'");
  return {t0, t1};
}

uint64_t slice_of(int64_t id) { return static_cast<uint64_t>(id); }

const std::map<std::string_view, Route>& routes() {
  using Q = const Queries&;
  using R = const HttpRequest&;
  static const std::map<std::string_view, Route> table = {
      {"runs", [](Q q, R) { return q.runs(); }},
      {"summary", [](Q q, R r) { return q.summary(scope_of(r), r.text("by", "rank")); }},
      {"findings", [](Q q, R r) { return q.findings(scope_of(r)); }},
      {"diagnostics", [](Q q, R) { return q.diagnostics(); }},
      {"tracks",
       [](Q q, R r) {
         return tracks_json(q.run(), r.integer("rank", -1, -1), r.integer("span", -1, -1));
       }},
      {"strings",
       [](Q q, R r) {
         const auto file = static_cast<int>(
             r.integer("file", 0, 0, static_cast<int64_t>(q.run().files().size()) - 1));
         return strings_json(q.run(), file,
                             static_cast<uint32_t>(r.integer("from", 0, 0, UINT32_MAX)));
       }},
      {"range",
       [](Q q, R r) {
         const auto [t0, t1] = range_of(r);
         return range_json(q.run(), numbers<uint32_t>(r, "tracks", 1000), t0, t1);
       }},
      {"search",
       [](Q q, R r) {
         return search_json(q.run(), r.text("q"), r.integer("rank", -1, -1),
                            static_cast<uint32_t>(r.integer("limit", 200, 1, 10000)),
                            r.text("after"));
       }},
      {"flows",
       [](Q q, R r) {
         const auto [t0, t1] = range_of(r);
         return flows_json(q.run(), numbers<uint32_t>(r, "tracks", 1000), t0, t1,
                           static_cast<uint32_t>(r.integer("limit", 2000, 1, 10000)));
       }},
      {"counters",
       [](Q q, R r) {
         const auto [t0, t1] = range_of(r);
         return counters_json(q.run(), static_cast<uint32_t>(r.integer("track", 0, 0, UINT32_MAX)),
                              t0, t1, static_cast<uint32_t>(r.integer("n", 500, 1, 5000)));
       }},
      {"same_name",
       [](Q q, R r) {
         return Json{{"id", same_name_json(q.run(), slice_of(r.integer("slice", 0, 0)),
                                           r.integer("forward", 1) != 0)}};
       }},
      {"ops", [](Q q, R r) { return q.ops(table_of(r)); }},
      {"kernels", [](Q q, R r) { return q.kernels(table_of(r)); }},
      {"modules", [](Q q, R r) { return q.modules(table_of(r)); }},
      {"comm/groups", [](Q q, R r) { return q.comm_groups(scope_of(r)); }},
      {"comm/matrix",
       [](Q q, R r) { return q.comm_matrix(scope_of(r), r.text("tag"), r.text("type")); }},
      {"comm/calls",
       [](Q q, R r) { return q.comm_calls(table_of(r), r.text("tag"), r.text("type")); }},
      {"comm/ranks", [](Q q, R r) { return q.comm_ranks(scope_of(r), r.text("tag")); }},
      {"comm/links", [](Q q, R r) { return q.comm_links(scope_of(r)); }},
      {"comm/alignment", [](Q q, R r) { return q.comm_alignment(scope_of(r)); }},
      {"parallel/layout", [](Q q, R) { return q.parallel_layout(); }},
      {"pipeline", [](Q q, R r) { return q.pipeline(scope_of(r)); }},
      {"flame",
       [](Q q, R r) {
         FlameQuery flame;
         flame.modules = r.text("by") == "modules";
         if (!r.text("t0").empty() || !r.text("t1").empty()) flame.range = range_of(r);
         flame.tracks = numbers<uint32_t>(r, "tracks", 1000);
         return q.flame(scope_of(r), flame);
       }},
      {"idle", [](Q q, R r) { return q.idle(scope_of(r)); }},
      {"critical_path", [](Q q, R r) { return q.critical_path(scope_of(r)); }},
      {"memory/curve",
       [](Q q, R r) { return q.memory_curve(scope_of(r), r.integer("points", 1000, 10, 20000)); }},
      {"memory/categories", [](Q q, R r) { return q.memory_categories(scope_of(r)); }},
      {"memory/peak", [](Q q, R r) { return q.memory_peak(scope_of(r)); }},
      {"memory/allocations", [](Q q, R r) { return q.memory_allocations(table_of(r)); }},
      {"memory/snapshot",
       [](Q q, R r) { return q.memory_snapshot(r.integer("number", 0, 0, 10000)); }},
      {"document",
       [](Q q, R r) { return q.summary_document(scope_of(r), r.integer("top", 15, 1, 1000)); }},
  };
  return table;
}

HttpReply json_reply(const Json& document, std::string etag = "") {
  // Names in a trace may be any bytes; what is no UTF-8 is shown as such.
  return {.body = document.dump(-1, ' ', false, Json::error_handler_t::replace),
          .etag = std::move(etag)};
}

HttpReply binary_reply(std::string bytes, std::string etag) {
  return {.type = "application/octet-stream", .body = std::move(bytes), .etag = std::move(etag)};
}

Json diff(const Viewer::State& state, const HttpRequest& request) {
  state.ready();
  if (state.baseline == nullptr) {
    return {
        {"empty",
         "There is nothing to compare with. Start the viewer with another run as well: triptych "
         "insight DIR --baseline OTHER_DIR"}};
  }
  Scope a, b;
  if (!request.text("step_a").empty()) a.step = request.integer("step_a", 0);
  if (!request.text("step_b").empty()) b.step = request.integer("step_b", 0);
  return diff_json(*state.baseline, *state.queries, request.text("table", "summary"), a, b);
}

Json metrics(const Viewer::State& state, const HttpRequest& request) {
  if (state.metrics.empty()) {
    return {{"empty",
             "There is no metrics.jsonl here. It stands in the output folder of a run: open that "
             "folder, not the one with the traces alone."}};
  }
  uint64_t id = 0;
  const std::string text = request.text("id", "0");
  std::from_chars(text.data(), text.data() + text.size(), id);
  return metrics_rows(state.metrics, id, static_cast<uint64_t>(request.integer("from", 0, 0)),
                      request.integer("limit", 20000, 1, 100000));
}

/// Answers that need no trace: they come while it is being read.
std::optional<HttpReply> answer_at_once(Viewer::State& state, std::string_view path,
                                        const HttpRequest& request) {
  if (path == "info") {
    Json info = state.progress_json();
    info["name"] = state.name;
    info["baseline"] = state.options.baseline.has_value();
    info["metrics"] = !state.metrics.empty();
    return json_reply(info);
  }
  if (path == "events") return HttpReply{.type = "text/event-stream", .stream = live_events(state)};
  if (path == "metrics") return json_reply(metrics(state, request));
  return {};
}

}  // namespace

HttpReply answer_api(Viewer::State& state, std::string_view path, const HttpRequest& request) {
  if (auto reply = answer_at_once(state, path, request)) return std::move(*reply);
  if (!state.done)
    return http_error(503, "loading", "the traces are still being read",
                      "wait for the page to go on");
  const Queries& queries = state.ready();
  // The same question has the same answer while neither the files nor this program change.
  static const uint64_t program = xxh3_64(page_asset("app.js"));
  const uint64_t other = state.baseline == nullptr ? 0 : state.baseline->run().fingerprint();
  const std::string etag = hex64(queries.run().fingerprint() ^ other * 31 ^ program);

  if (const auto found = routes().find(path); found != routes().end()) {
    return json_reply(found->second(queries, request), etag);
  }
  if (path.starts_with("slice/")) {
    HttpRequest copy = request;
    copy.params["slice"] = std::string(path.substr(6));
    return json_reply(slice_json(queries.run(), slice_of(copy.integer("slice", 0, 0))), etag);
  }
  if (path == "tiles") {
    TileRequest tiles;
    tiles.level = static_cast<uint32_t>(request.integer("level", 10, 0, 50));
    tiles.tiles = numbers<int64_t>(request, "tiles", 64);
    tiles.tracks = numbers<uint32_t>(request, "tracks", 1000);
    return binary_reply(tiles_binary(queries.run(), tiles), etag);
  }
  if (path == "slices") {
    const auto [t0, t1] = range_of(request);
    return binary_reply(
        slices_binary(queries.run(),
                      static_cast<uint32_t>(request.integer("track", 0, 0, UINT32_MAX)), t0, t1,
                      static_cast<uint32_t>(request.integer("limit", 1000, 1, 100000))),
        etag);
  }
  if (path == "diff") return json_reply(diff(state, request), etag);
  if (path == "export.csv") {
    const std::string table = request.text("table", "summary");
    const std::vector<std::string> known = table_names();
    require<UsageError>(std::ranges::find(known, table) != known.end(), "there is no such table");
    return {.type = "text/csv; charset=utf-8",
            .body = to_csv(table_by_name(queries, table, scope_of(request))),
            .download = table + ".csv"};
  }
  if (path == "export.html") {
    return {.type = "text/html; charset=utf-8",
            .body = report_html(state),
            .download = "triptych-report.html"};
  }
  return http_error(404, "path", "there is no such question");
}

}  // namespace triptych::insight

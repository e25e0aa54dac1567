#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

struct CommCalls;
struct FlameQuery;
struct StepTimes;

/// Which part of a run an answer is about; what is not set means all.
struct Scope {
  int64_t span = -1;  ///< -1: the last
  std::optional<int64_t> rank;
  std::optional<int64_t> step;
};

/// How a table is asked for.
struct TableQuery {
  Scope scope;
  std::string group = "name";  ///< name | shapes | module | stack
  std::string module;          ///< only below this module path
  std::string sort;            ///< a column; "-column" for descending; "" for the table's own order
  std::string filter;          ///< part of the name
  int64_t offset = 0;
  int64_t limit = 100;
};

/// Answers questions about one loaded run. Each function gives the JSON document of the endpoint
/// that bears its name; what is expensive is computed once and kept. All functions may be called
/// from any thread. A document that has nothing to show carries "empty": a sentence that says why
/// and how to collect what is missing.
class Queries {
 public:
  explicit Queries(std::shared_ptr<const Run> run);
  ~Queries();

  /// {"runs":[{"name","root","ranks":[],"spans":[{"span","ranks","steps"}],"world_size","metadata",
  ///  "files":[{"file","path","rank","span","bytes","events","truncated","error","warnings"}],
  ///  "origin_ns","duration_ns","device","snapshots":[],"metrics":bool,"layout"}]}
  Json runs() const;
  /// by = "rank" (means over its steps) or "step":
  /// {"by","rows":[{rank, step, total_ns, ... of StepTimes}],"columns"}.
  Json summary(const Scope& scope, std::string_view by) const;
  /// {"findings":[{"kind","words","rank","step","src","dst","severity","page","evidence"}],"advice":[...]}:
  /// findings are what is wrong, advice is what a healthy run may show as well.
  Json findings(const Scope& scope) const;
  Json ops(const TableQuery& query) const;
  Json kernels(const TableQuery& query) const;
  Json modules(const TableQuery& query) const;
  Json comm_groups(const Scope& scope) const;
  /// metric cells of one group ("" all) and collective type ("" all):
  /// {"ranks":[],"cells":[{"src","dst","bytes","time_ns","bandwidth","count","transport",
  ///  "estimated"}]}
  Json comm_matrix(const Scope& scope, std::string_view group, std::string_view type) const;
  Json comm_calls(const TableQuery& query, std::string_view group, std::string_view type) const;
  Json comm_ranks(const Scope& scope, std::string_view group) const;
  Json comm_links(const Scope& scope) const;
  Json comm_alignment(const Scope& scope) const;
  Json parallel_layout() const;
  Json pipeline(const Scope& scope) const;
  Json flame(const Scope& scope, const FlameQuery& query) const;
  Json idle(const Scope& scope) const;
  Json critical_path(const Scope& scope) const;
  Json memory_curve(const Scope& scope, int64_t points) const;
  Json memory_categories(const Scope& scope) const;
  Json memory_peak(const Scope& scope) const;
  Json memory_allocations(const TableQuery& query) const;
  Json memory_snapshot(int64_t number) const;  ///< of Run::snapshots()
  Json scalars(const std::vector<std::string>& tags) const;
  Json diagnostics() const;
  /// Everything `profile summary --json` prints: facts, steps[], ranks[], findings[], tops.
  Json summary_document(const Scope& scope, int64_t top) const;

  const Run& run() const { return *run_; }

 private:
  struct Cache;
  std::shared_ptr<const CommCalls> calls_of(int64_t span) const;
  std::shared_ptr<const std::vector<StepTimes>> steps_of(int64_t span) const;
  std::shared_ptr<const Json> snapshot_at(int64_t number) const;
  std::optional<Json> from_snapshot(const Scope& scope, const char* part) const;
  std::shared_ptr<const Run> run_;
  std::unique_ptr<Cache> cache_;
};

/// Two runs beside each other. table = summary | ops | kernels | modules | comm:
/// {"table","rows":[{"key","a","b","delta","share","change":"added|deleted|increased|decreased|unchanged"}],
///  "total":{"a","b","delta"}} with the largest contribution first.
Json diff_json(const Queries& a, const Queries& b, std::string_view table, const Scope& scope_a,
               const Scope& scope_b);

/// "rows" of a table document as CSV (RFC 4180), first line the names of the columns. A cell that a
/// spreadsheet would take for a formula is prefixed with an apostrophe.
std::string to_csv(const Json& table);

/// Names that Queries can make a table of for export.csv?table=: summary, ops, kernels, ...
std::vector<std::string> table_names();
Json table_by_name(const Queries& queries, std::string_view table, const Scope& scope);

}  // namespace triptych::insight

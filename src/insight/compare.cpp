#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "insight/queries.h"

namespace triptych::insight {
namespace {

struct Column {
  const char* document;  ///< which document its rows come from
  std::vector<const char*> key;
  const char* value;
};

Column column_of(std::string_view table) {
  if (table == "summary") return {"summary", {"class"}, "value_ns"};
  if (table == "ops") return {"ops", {"key"}, "self_ns"};
  if (table == "kernels") return {"kernels", {"name"}, "total_ns"};
  if (table == "modules") return {"modules", {"module"}, "self_ns"};
  if (table == "comm") return {"comm", {"group", "type"}, "transit_ns"};
  fail("table = ", table, ": summary, ops, kernels, modules or comm");
}

/// Of the mean step: per class of time.
Json class_rows(const Queries& queries, const Scope& scope) {
  const auto steps = queries.summary(scope, "step");
  Json rows = Json::array();
  for (const auto* key :
       {"compute_only_ns", "overlapped_ns", "exposed_comm_ns", "free_ns", "preparing_ns"}) {
    double sum = 0;
    for (const auto& row : steps["rows"]) sum += row[key].get<double>();
    if (!steps["rows"].empty()) sum /= static_cast<double>(steps["rows"].size());
    std::string name(key);
    rows.push_back({{"class", name.substr(0, name.size() - 3)}, {"value_ns", sum}});
  }
  return rows;
}

Json rows_of(const Queries& queries, std::string_view table, const Scope& scope) {
  const TableQuery query{.scope = scope, .limit = 100000};
  if (table == "summary") return class_rows(queries, scope);
  if (table == "ops") return queries.ops(query)["rows"];
  if (table == "kernels") return queries.kernels(query)["rows"];
  if (table == "modules") return queries.modules(query)["rows"];
  return queries.comm_groups(scope)["rows"];
}

/// Steps times ranks that a table sums over: two runs of different lengths compare per step.
double windows_of(const Queries& queries, const Scope& scope) {
  return std::max<double>(1, static_cast<double>(queries.summary(scope, "step")["rows"].size()));
}

std::string csv_cell(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>()
                     : value.is_null() ? ""
                                       : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (value.is_string() && !text.empty() &&
      std::string_view("=+-@\t\r").find(text[0]) != std::string_view::npos)
    text.insert(0, "'");
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

Json diff_json(const Queries& a, const Queries& b, std::string_view table, const Scope& scope_a,
               const Scope& scope_b) {
  const Column column = column_of(table);
  struct Pair {
    double a = 0, b = 0, calls_a = 0, calls_b = 0;
    bool in_a = false, in_b = false;
  };
  std::map<std::string, Pair> pairs;
  const bool per_step = table != "summary";
  const auto collect = [&](const Queries& queries, const Scope& scope, bool first) {
    const double windows = per_step ? windows_of(queries, scope) : 1;
    for (const auto& row : rows_of(queries, table, scope)) {
      std::string key;
      for (const char* part : column.key)
        key += (key.empty() ? "" : " ") + row[part].get<std::string>();
      auto& pair = pairs[key];
      (first ? pair.a : pair.b) += row[column.value].get<double>() / windows;
      if (row.contains("calls"))
        (first ? pair.calls_a : pair.calls_b) += row["calls"].get<double>() / windows;
      (first ? pair.in_a : pair.in_b) = true;
    }
  };
  collect(a, scope_a, true);
  collect(b, scope_b, false);
  double total_a = 0, total_b = 0, moved = 0;
  for (const auto& [key, p] : pairs) total_a += p.a, total_b += p.b, moved += std::abs(p.b - p.a);
  std::vector<std::pair<std::string, Pair>> order(pairs.begin(), pairs.end());
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& p) { return std::abs(p.second.b - p.second.a); });
  Json rows = Json::array();
  for (const auto& [key, p] : order) {
    // Below one per cent is noise of the clock and the machine.
    const char* change = !p.in_a            ? "added"
                         : !p.in_b          ? "deleted"
                         : p.b > 1.01 * p.a ? "increased"
                         : p.b < 0.99 * p.a ? "decreased"
                                            : "unchanged";
    rows.push_back({{"key", key},
                    {"a", p.a},
                    {"b", p.b},
                    {"delta", p.b - p.a},
                    {"share", moved > 0 ? (p.b - p.a) / moved : 0},
                    {"calls_a", p.calls_a},
                    {"calls_b", p.calls_b},
                    {"change", change}});
  }
  return {{"table", table},
          {"unit", "ns per step and rank"},
          {"rows", std::move(rows)},
          {"total", {{"a", total_a}, {"b", total_b}, {"delta", total_b - total_a}}}};
}

std::string to_csv(const Json& table) {
  const Json& rows = table.is_array() ? table : table["rows"];
  std::vector<std::string> columns;
  for (const auto& row : rows)
    for (const auto& [key, value] : row.items())
      if (std::ranges::find(columns, key) == columns.end() &&
          !(value.is_array() && !value.empty() && value[0].is_object()))
        columns.push_back(key);
  std::string out;
  for (size_t i = 0; i < columns.size(); ++i) out += (i ? "," : "") + csv_cell(columns[i]);
  out += "\r\n";
  for (const auto& row : rows) {
    for (size_t i = 0; i < columns.size(); ++i)
      out +=
          (i ? "," : "") + (row.contains(columns[i]) ? csv_cell(row[columns[i]]) : std::string());
    out += "\r\n";
  }
  return out;
}

std::vector<std::string> table_names() {
  return {"summary",     "ranks",
          "findings",    "ops",
          "kernels",     "modules",
          "comm_groups", "comm_matrix",
          "comm_calls",  "comm_ranks",
          "comm_links",  "idle",
          "memory_peak", "memory_allocations",
          "layout",      "diagnostics"};
}

Json table_by_name(const Queries& queries, std::string_view table, const Scope& scope) {
  const TableQuery all{.scope = scope, .limit = 1000000};
  if (table == "summary") return queries.summary(scope, "step");
  if (table == "ranks") return queries.summary(scope, "rank");
  if (table == "findings") return queries.findings(scope);
  if (table == "ops") return queries.ops(all);
  if (table == "kernels") return queries.kernels(all);
  if (table == "modules") return queries.modules(all);
  if (table == "comm_groups") return queries.comm_groups(scope);
  if (table == "comm_matrix") return queries.comm_matrix(scope, "", "");
  if (table == "comm_calls") return queries.comm_calls(all, "", "");
  if (table == "comm_ranks") return queries.comm_ranks(scope, "");
  if (table == "comm_links") return queries.comm_links(scope);
  if (table == "idle") return queries.idle(scope);
  if (table == "memory_peak") return queries.memory_peak(scope);
  if (table == "memory_allocations") return queries.memory_allocations(all);
  if (table == "layout") return queries.parallel_layout();
  if (table == "diagnostics") return queries.diagnostics();
  std::string names;
  for (const auto& name : table_names()) names += (names.empty() ? "" : ", ") + name;
  fail("table = ", table, ": ", names);
}

}  // namespace triptych::insight

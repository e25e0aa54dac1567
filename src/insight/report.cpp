#include "insight/report.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <vector>

#include "base/error.h"
#include "base/format.h"

namespace triptych::insight {
namespace {

double number(const Json& row, const char* key) {
  return row.contains(key) && row[key].is_number() ? row[key].get<double>() : 0;
}
std::string text(const Json& row, const char* key) {
  return row.contains(key) && row[key].is_string() ? row[key].get<std::string>() : "";
}

std::string time_text(double ns) {
  if (ns >= 1e9) return fmt::format("{:.2f} s", ns / 1e9);
  if (ns >= 1e6) return fmt::format("{:.2f} ms", ns / 1e6);
  return fmt::format("{:.1f} us", ns / 1e3);
}
std::string bytes_text(double bytes) {
  if (bytes >= 1073741824.0) return fmt::format("{:.2f} GiB", bytes / 1073741824.0);
  if (bytes >= 1048576.0) return fmt::format("{:.1f} MiB", bytes / 1048576.0);
  return fmt::format("{:.1f} KiB", bytes / 1024);
}
std::string rate_text(double rate) {
  return rate >= 1e9 ? fmt::format("{:.2f} GB/s", rate / 1e9)
                     : fmt::format("{:.1f} MB/s", rate / 1e6);
}

/// Cut to `width` columns, with "..." in front of the end.
std::string cut(std::string s, size_t width) {
  if (s.size() <= width) return s;
  size_t end = width - 3;
  while (end > 0 && (static_cast<unsigned char>(s[end]) & 0xC0) == 0x80) --end;
  return s.substr(0, end) + "...";
}

std::string bar(const Json& row, size_t width) {
  struct Part {
    const char* key;
    char mark;
  };
  static constexpr Part kParts[] = {{"compute_only_ns", '#'},
                                    {"overlapped_ns", '='},
                                    {"exposed_comm_ns", 'c'},
                                    {"free_ns", '.'},
                                    {"preparing_ns", 'p'}};
  const double total = std::max(1.0, number(row, "total_ns"));
  std::string out;
  double sum = 0;
  for (const auto& part : kParts) {
    sum += number(row, part.key);
    const auto until = static_cast<size_t>(sum / total * static_cast<double>(width) + 0.5);
    if (until > out.size()) out.append(until - out.size(), part.mark);
  }
  out.resize(width, ' ');
  return out;
}

void wrap_into(std::string& out, std::string_view words, size_t indent) {
  size_t column = indent;
  out.append(indent, ' ');
  while (!words.empty()) {
    const auto blank = words.find(' ');
    const auto word = words.substr(0, blank);
    if (column + word.size() + 1 > 100 && column > indent) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    words = blank == std::string_view::npos ? std::string_view() : words.substr(blank + 1);
  }
  out += '\n';
}

/// A line a layer, the largest first: what it holds of each category.
std::string layer_lines(const Json& m, size_t most) {
  static constexpr std::pair<const char*, const char*> kColumns[] = {
      {"parameter", "weights"}, {"gradient", "gradients"}, {"optimizer_state", "states"},
      {"activation", "kept"},   {"temporary", "passing"},  {"", "other"}};
  if (!m.contains("layers") || m["layers"].empty()) return "";
  auto out = fmt::format("    {:<26} {:>9}", "layer", "all");
  for (const auto& [key, title] : kColumns) out += fmt::format(" {:>9}", title);
  out += '\n';
  for (size_t i = 0; i < m["layers"].size() && i < most; ++i) {
    const auto& layer = m["layers"][i];
    double rest = number(layer, "bytes");
    auto line = fmt::format("    {:<26} {:>9}", cut(text(layer, "module"), 26), bytes_text(rest));
    for (const auto& [key, title] : kColumns) {
      const bool last = *key == 0;
      const double bytes = last ? rest : number(layer, key);
      rest -= last ? 0 : bytes;
      line += fmt::format(" {:>9}", bytes >= 1 ? bytes_text(bytes) : "");
    }
    out += line + "\n";
  }
  return out;
}

}  // namespace

std::string report_text(const Json& s, int64_t top) {
  std::string out;
  const auto& run = s["run"];
  out += fmt::format("{}: {} of {} ranks, {} on {}\n", cut(text(run, "name"), 40),
                     run["ranks"].size(), run["world_size"].get<int64_t>(),
                     time_text(number(run, "duration_ns")), text(run, "device"));
  if (run["model"].is_object() && run["model"].contains("model"))
    out += "model " + cut(text(run["model"], "model"), 80) + "\n";
  for (const auto& file : run["files"]) {
    if (!text(file, "error").empty())
      out += cut("unreadable: " + text(file, "path") + ": " + text(file, "error"), 100) + "\n";
    if (file.contains("warnings"))
      for (const auto& warning : file["warnings"])
        out +=
            cut(fmt::format("rank {}: {}", file["rank"].get<int64_t>(), warning.get<std::string>()),
                100) +
            "\n";
  }
  if (!s["ranks"].empty()) {
    out +=
        "\nMean step by rank   # compute  = overlapped  c exposed communication  . free  p "
        "preparing\n";
    out += fmt::format("{:>5} {:>11} {:>6} {:>7} {:>7} {:>6} {:>6}  \n", "rank", "step", "comp%",
                       "exposed", "overlap", "free%", "prep%");
    const auto limit = static_cast<size_t>(std::max<int64_t>(top, 8));
    for (size_t i = 0; i < s["ranks"].size() && i < limit; ++i) {
      const auto& r = s["ranks"][i];
      const double total = std::max(1.0, number(r, "total_ns"));
      const auto share = [&](const char* key) { return 100 * number(r, key) / total; };
      out += fmt::format("{:>5} {:>11} {:>6.1f} {:>7.1f} {:>7.1f} {:>6.1f} {:>6.1f}  {}\n",
                         r["rank"].get<int64_t>(), time_text(total), share("compute_only_ns"),
                         share("exposed_comm_ns"), share("overlapped_ns"), share("free_ns"),
                         share("preparing_ns"), bar(r, 40));
    }
    if (s["ranks"].size() > limit)
      out += fmt::format("  and {} more ranks\n", s["ranks"].size() - limit);
  }
  const auto table = [&](const char* title, const Json& rows, auto&& line) {
    if (rows.empty()) return;
    out += std::string("\n") + title + "\n";
    for (size_t i = 0; i < rows.size() && i < static_cast<size_t>(top); ++i)
      out += line(rows[i]) + "\n";
  };
  table("Operators by self time", s["ops"], [](const Json& r) {
    return fmt::format("{:<52} {:>7} x {:>11} {:>11} self {:>4.1f} %", cut(text(r, "name"), 52),
                       r["calls"].get<int64_t>(), time_text(number(r, "avg_ns")),
                       time_text(number(r, "self_ns")), 100 * number(r, "share"));
  });
  table("Device kernels", s["kernels"], [](const Json& r) {
    return fmt::format("{:<52} {:>7} x {:>11} {:>11} {:>9.1f} %", cut(text(r, "name"), 52),
                       r["calls"].get<int64_t>(), time_text(number(r, "avg_ns")),
                       time_text(number(r, "total_ns")), 100 * number(r, "share"));
  });
  table("Modules by self time", s["modules"], [](const Json& r) {
    return fmt::format("{:<52} {:>7} x {:>11} {:>11} self", cut(text(r, "module"), 52),
                       r["calls"].get<int64_t>(), time_text(number(r, "total_ns")),
                       time_text(std::max(number(r, "self_ns"), number(r, "device_self_ns"))));
  });
  table("Communication by group", s["communication"]["groups"], [](const Json& r) {
    return fmt::format("{:<24} {:<15} {:>7} x {:>11} {:>11} {:>12} bus", cut(text(r, "group"), 24),
                       cut(text(r, "type"), 15), r["calls"].get<int64_t>(),
                       bytes_text(number(r, "bytes") / std::max(1.0, number(r, "calls"))),
                       time_text(number(r, "transit_ns")), rate_text(number(r, "bus_bandwidth")));
  });
  table("Waiting in collectives by rank", s["communication"]["ranks"], [](const Json& r) {
    return fmt::format(
        "rank {:>5} {:>7} calls, waits {:>11}, {:>11} late on average, last in {:>3.0f} %",
        r["rank"].get<int64_t>(), r["calls"].get<int64_t>(), time_text(number(r, "wait_ns")),
        time_text(std::max(0.0, number(r, "late_ns"))), 100 * number(r, "last_share"));
  });
  table("Causes of idle time", s["idle"]["causes"], [](const Json& r) {
    return fmt::format("{:<60} {:>7} x {:>11}", cut(text(r, "name"), 60), r["count"].get<int64_t>(),
                       time_text(number(r, "total_ns")));
  });
  if (s.contains("pipeline")) {
    const auto& p = s["pipeline"];
    out += fmt::format("\nPipeline: {:.1f} % bubble, {} in theory {:.1f} %\n",
                       100 * number(p, "bubble_share"), text(p["theory"], "schedule"),
                       100 * number(p["theory"], "bubble_share"));
  }
  for (size_t i = 0; i < s["memory"].size() && i < 8; ++i) {
    const auto& m = s["memory"][i];
    if (i == 0) out += "\nMemory at the peak\n";
    auto line = fmt::format("rank {}{}: {}:", m["rank"].get<int64_t>(),
                            m.contains("snapshot") ? " (" + text(m, "snapshot") + ")" : "",
                            bytes_text(number(m, "allocated")));
    for (const auto& [name, bytes] : m["categories"].items())
      line += fmt::format(" {} {},", name, bytes_text(bytes.get<double>()));
    line.pop_back();
    wrap_into(out, line, 2);
    out += layer_lines(m, static_cast<size_t>(top));
  }
  const auto list = [&](const char* title, const Json& rows) {
    if (rows.empty()) return;
    out += std::string("\n") + title + "\n";
    for (const auto& f : rows) wrap_into(out, text(f, "kind") + ": " + text(f, "words"), 2);
  };
  list("Findings", s["findings"]);
  list("Advice", s["advice"]);
  if (s["findings"].empty()) out += "\nFindings: none\n";
  return out;
}

Json memory_layers_table(const Json& s) {
  Json rows = Json::array();
  for (const auto& m : s["memory"]) {
    if (!m.contains("layers")) continue;
    for (const auto& layer : m["layers"]) {
      Json row{{"rank", m["rank"]}, {"snapshot", m.value("snapshot", "")}};
      row.update(layer);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::string step_trace_csv(const Json& s, const Json& layout) {
  struct Column {
    const char* title;
    const char* key;
  };
  static constexpr Column kColumns[] = {
      {"Computing", "compute_ns"},
      {"Communication(Not Overlapped)", "exposed_comm_ns"},
      {"Overlapped", "overlapped_ns"},
      {"Communication", "communication_ns"},
      {"Free", "free_ns"},
      {"Stage", "stage_ns"},
      {"Bubble", "bubble_ns"},
      {"Communication(Not Overlapped and Exclude Receive)", "exposed_without_bubble_ns"},
      {"Preparing", "preparing_ns"}};
  std::map<int64_t, const Json*> cells;
  for (const auto& cell : layout["cells"]) cells[cell["rank"].get<int64_t>()] = &cell;
  std::string out = "Step,Type,Index";
  for (const auto& c : kColumns) out += std::string(",") + c.title;
  out += ",DP Index,PP Index,TP Index\r\n";
  const auto us = [](double ns) { return fmt::format("{:.3f}", ns / 1000); };
  std::map<std::pair<int64_t, int64_t>, std::vector<const Json*>> stages;
  for (const auto& row : s["steps"]) {
    const int64_t rank = row["rank"].get<int64_t>(), step = row["step"].get<int64_t>();
    const auto cell = cells.find(rank);
    out += fmt::format("{},rank,{}", step, rank);
    for (const auto& c : kColumns) out += "," + us(number(row, c.key));
    if (cell != cells.end()) {
      const auto& at = *cell->second;
      out += fmt::format(",{},{},{}", at["data"].get<int64_t>(), at["pipeline"].get<int64_t>(),
                         at["tensor"].get<int64_t>());
      stages[{step, at["pipeline"].get<int64_t>()}].push_back(&row);
    } else {
      out += ",,,";
    }
    out += "\r\n";
  }
  for (const auto& [key, rows] : stages) {
    out += fmt::format("{},stage,{}", key.first, key.second);
    for (const auto& c : kColumns) {
      double most = 0;
      for (const auto* row : rows) most = std::max(most, number(*row, c.key));
      out += "," + us(most);
    }
    out += ",,,\r\n";
  }
  return out;
}

bool holds(const Json& s, std::string_view expression) {
  static constexpr std::pair<std::string_view, const char*> kShares[] = {
      {"compute", "compute_ns"},         {"exposed_comm", "exposed_comm_ns"},
      {"overlapped", "overlapped_ns"},   {"free", "free_ns"},
      {"preparing", "preparing_ns"},     {"bubble", "bubble_ns"},
      {"loader_wait", "loader_wait_ns"}, {"communication", "communication_ns"}};
  std::string compact;
  for (const char c : expression)
    if (c != ' ') compact += c;
  const auto at = compact.find_first_of("<>");
  const auto wrong = [&] {
    fail<UsageError>(
        "--fail-if ", expression,
        ": write a name, one of > >= < <=, and a number; names: compute, exposed_comm, "
        "overlapped, free, preparing, bubble, loader_wait, communication (shares of the step), "
        "step_ms, findings, peak_gib");
  };
  if (at == std::string::npos || at == 0) wrong();
  const std::string name = compact.substr(0, at);
  const bool equal = at + 1 < compact.size() && compact[at + 1] == '=';
  const std::string bound_text = compact.substr(at + (equal ? 2 : 1));
  double bound = 0;
  const auto [behind, error] =
      std::from_chars(bound_text.data(), bound_text.data() + bound_text.size(), bound);
  if (error != std::errc() || behind != bound_text.data() + bound_text.size() || bound_text.empty())
    wrong();
  double total = 0, value = 0;
  const auto mean_of = [&](const char* key) {
    double sum = 0;
    for (const auto& row : s["steps"]) sum += number(row, key);
    return s["steps"].empty() ? 0 : sum / static_cast<double>(s["steps"].size());
  };
  total = mean_of("total_ns");
  bool known = false;
  for (const auto& [share, key] : kShares)
    if (share == name) value = total > 0 ? mean_of(key) / total : 0, known = true;
  if (name == "step_ms") value = total / 1e6, known = true;
  if (name == "findings") value = static_cast<double>(s["findings"].size()), known = true;
  if (name == "peak_gib") {
    for (const auto& m : s["memory"])
      value = std::max(value, number(m, "allocated") / 1073741824.0);
    known = true;
  }
  if (!known) wrong();
  if (compact[at] == '>') return equal ? value >= bound : value > bound;
  return equal ? value <= bound : value < bound;
}

}  // namespace triptych::insight

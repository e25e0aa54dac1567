#include "insight/communication.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "insight/alignment.h"
#include "insight/statistics.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

constexpr int64_t kLarge = 1 << 20;

bool in_group(const CommCalls& calls, const CommCall& call, std::string_view group) {
  if (group.empty() || group == "all") return true;
  const auto& g = calls.groups[static_cast<size_t>(call.group)];
  return g.name == group || g.tag == group || group_label(g) == group;
}

bool has_type(const CommCall& call, std::string_view type) {
  return type.empty() || type == "all" || call.type == type;
}

class LinkTable {
 public:
  explicit LinkTable(const Run& run) {
    for (const auto& file : run.files())
      if (file.loaded && file.error.empty()) hosts_[file.rank] = host_of(file.trace);
  }

  /// @param unawaited_ns  of a message that was not waited for from its sending to its receipt: its
  ///   transfer took at most this, and `ns` may be a part of it
  void add(int64_t src, int64_t dst, double bytes, double ns, bool estimated,
           std::optional<double> unawaited_ns = {}) {
    auto& link = links_[{src, dst}];
    if (link.count == 0) {
      link.src = src;
      link.dst = dst;
      const auto a = hosts_.find(src), b = hosts_.find(dst);
      const bool known = a != hosts_.end() && b != hosts_.end();
      link.transport = src == dst                         ? "local"
                       : !known || a->second == b->second ? "same host"
                                                          : "other host";
    }
    link.bytes += bytes;
    link.time_ns += ns;
    ++link.count;
    link.estimated = link.estimated || estimated;
    const double most_ns = unawaited_ns.value_or(ns);
    if (bytes < kLarge || most_ns <= 0) return;
    link.at_least.push_back(bytes / most_ns * 1e9);
    if (unawaited_ns) return;
    ++link.large;
    link.bandwidths.push_back(link.at_least.back());
  }

  std::vector<Link> take() {
    std::vector<Link> out;
    for (auto& [key, link] : links_) out.push_back(std::move(link));
    return out;
  }

 private:
  std::map<int64_t, std::string> hosts_;
  std::map<std::pair<int64_t, int64_t>, Link> links_;
};

/// From its sending to its receipt, of a message that was not waited for from its beginning: what
/// has come, in part or as a whole, before it is asked for shows a shorter time than its transfer.
std::optional<double> unawaited_ns(const CommCall& call) {
  const auto part_of = [&](int64_t rank) {
    return std::ranges::find(call.parts, rank, &CommPart::rank);
  };
  const auto sent = part_of(call.src), received = part_of(call.dst);
  if (sent == call.parts.end() || received == call.parts.end()) return {};  // all that is known
  if (received->begin_ns <= sent->begin_ns) return {};
  return static_cast<double>(std::max(sent->end_ns, received->end_ns) - sent->begin_ns);
}

void spread(LinkTable& table, const CommCall& call, const CommGroup& group) {
  const auto ns = static_cast<double>(call.transit_ns());
  const auto S = static_cast<double>(std::max<int64_t>(call.bytes, 0));
  if (call.message) {
    if (call.src < 0 || call.dst < 0) return;  // the other end was not recorded
    table.add(call.src, call.dst, S, ns, false, unawaited_ns(call));
    return;
  }
  const auto& ranks = group.ranks;
  const auto n = static_cast<int64_t>(ranks.size());
  if (n < 2 || call.parts.size() < 2) return;
  if (call.type == "all_to_all") {
    for (const auto a : ranks)
      for (const auto b : ranks)
        if (a != b) table.add(a, b, S / static_cast<double>(n), ns, true);
    return;
  }
  if (call.type != "all_reduce" && call.type != "all_gather" && call.type != "reduce_scatter")
    return;
  for (int64_t i = 0; i < n; ++i)  // a ring
    table.add(ranks[static_cast<size_t>(i)], ranks[static_cast<size_t>((i + 1) % n)],
              bus_factor(call.type, n) * S, ns, true);
}

}  // namespace

std::string group_label(const CommGroup& group) {
  if (group.name.empty()) return group.tag.empty() ? "all ranks" : group.tag;
  if (group.tag.empty() || group.name.starts_with(group.tag)) return group.name;
  return group.tag + " " + group.name;
}

std::string no_communication_text() {
  return "no communication was recorded; a run on several ranks records it with profile.level = 1, "
         "and "
         "PyTorch with NCCL since 2.2";
}

CommCalls calls_of_step(const Run& run, const CommCalls& calls, int64_t step) {
  CommCalls out = calls;
  std::erase_if(out.calls, [&](const CommCall& call) {
    const auto& part = call.parts.front();
    const Trace& t = run.files()[static_cast<size_t>(part.file)].trace;
    return step_of(t, part.event) != step;
  });
  return out;
}

std::vector<Link> links_of(const Run& run, const CommCalls& calls, std::string_view group,
                           std::string_view type) {
  LinkTable table(run);
  for (const auto& call : calls.calls)
    if (in_group(calls, call, group) && has_type(call, type))
      spread(table, call, calls.groups[static_cast<size_t>(call.group)]);
  return table.take();
}

std::vector<RankComm> rank_comm(const CommCalls& calls, std::string_view group) {
  std::map<int64_t, RankComm> ranks;
  for (const auto& call : calls.calls) {
    if (call.message || call.parts.size() < 2 || !in_group(calls, call, group)) continue;
    std::vector<double> begins;
    for (const auto& part : call.parts) begins.push_back(static_cast<double>(part.begin_ns));
    const double middle = median(begins), latest = quantile(begins, 1);
    for (const auto& part : call.parts) {
      auto& r = ranks[part.rank];
      r.rank = part.rank;
      ++r.calls;
      r.elapsed_ns += static_cast<double>(part.end_ns - part.begin_ns);
      r.transit_ns += static_cast<double>(call.transit_ns());
      r.wait_ns += static_cast<double>(call.wait_ns(part));
      r.late_ns += static_cast<double>(part.begin_ns) - middle;
      r.last_share += static_cast<double>(part.begin_ns) >= latest ? 1 : 0;
    }
  }
  std::vector<RankComm> out;
  for (auto& [rank, r] : ranks) {
    r.last_share /= static_cast<double>(r.calls);
    out.push_back(r);
  }
  return out;
}

std::vector<SlowLink> slow_links(const Run& run, const CommCalls& calls) {
  std::vector<SlowLink> out;
  // Messages: each link against the others of its class of transport.
  std::map<std::string, std::vector<const Link*>> classes;
  const auto links = links_of(run, calls, "", "send_recv");
  for (const auto& link : links)
    if (link.at_least.size() >= 3) classes[link.transport].push_back(&link);
  for (const auto& [transport, list] : classes) {
    if (list.size() < 2) continue;
    std::vector<double> speeds, best, logs;
    const auto is_judged = [](const Link& link) { return link.large >= 3; };
    for (const auto* link : list) {
      const auto& shown = is_judged(*link) ? link->bandwidths : link->at_least;
      speeds.push_back(median(shown));
      best.push_back(quantile(shown, 0.9));
      logs.push_back(std::log(speeds.back()));
    }
    // Of two links the better one says what is usual, by its fast messages: acknowledgements of
    // what it carries wait in the queue of the slow one. With more links it is the middle.
    const bool pair = list.size() == 2;
    const double usual = pair ? std::max(best[0], best[1]) : median(speeds);
    for (size_t i = 0; i < list.size(); ++i) {
      if (!is_judged(*list[i]) || (pair ? best[i] : speeds[i]) >= 0.5 * usual) continue;
      out.push_back({list[i]->src, list[i]->dst, speeds[i], usual, robust_z(logs[i], logs),
                     list[i]->large, false, 1e9 * list[i]->bytes * (1 / speeds[i] - 1 / usual)});
    }
  }
  // Collectives show no single link: a slow group among its like is all there is to say, and of two
  // members the link is between them.
  std::map<std::tuple<std::string, std::string, int64_t>, std::map<int, std::vector<double>>> alike;
  for (const auto& call : calls.calls) {
    if (call.message || call.bytes < kLarge || !call.complete || call.parts.size() < 2) continue;
    const auto& group = calls.groups[static_cast<size_t>(call.group)];
    if (call.transit_ns() > 0)
      alike[{group.tag, call.type, call.bytes}][call.group].push_back(
          static_cast<double>(call.bytes) / static_cast<double>(call.transit_ns()) * 1e9);
  }
  for (const auto& [key, groups] : alike) {
    if (groups.size() < 2) continue;
    std::vector<double> speeds;
    for (const auto& [g, list] : groups) speeds.push_back(median(list));
    const double usual = groups.size() == 2 ? std::max(speeds[0], speeds[1]) : median(speeds);
    size_t i = 0;
    for (const auto& [g, list] : groups) {
      const double speed = speeds[i++];
      const auto& group = calls.groups[static_cast<size_t>(g)];
      if (speed >= 0.5 * usual || list.size() < 3 || group.ranks.size() != 2) continue;
      const double bytes = static_cast<double>(std::get<2>(key)) * static_cast<double>(list.size());
      out.push_back({group.ranks[0], group.ranks[1], speed, usual, 0,
                     static_cast<int64_t>(list.size()), true,
                     1e9 * bytes * (1 / speed - 1 / usual)});
    }
  }
  return out;
}

Json comm_groups_json(const CommCalls& calls) {
  struct Sum {
    int64_t calls = 0, bytes = 0, transit = 0, wait = 0, elapsed = 0;
    double bus_bytes = 0;
    int64_t unknown = 0;
  };
  std::map<std::pair<int, std::string>, Sum> sums;
  for (const auto& call : calls.calls) {
    auto& s = sums[{call.group, call.type}];
    ++s.calls;
    s.transit += call.transit_ns();
    if (call.bytes >= 0) {
      s.bytes += call.bytes;
      s.bus_bytes += static_cast<double>(call.bytes) *
                     bus_factor(call.type, calls.groups[static_cast<size_t>(call.group)].size);
    } else {
      ++s.unknown;
    }
    for (const auto& part : call.parts) {
      s.wait += call.wait_ns(part);
      s.elapsed += part.end_ns - part.begin_ns;
    }
  }
  Json groups = Json::array();
  for (const auto& [key, s] : sums) {
    const auto& g = calls.groups[static_cast<size_t>(key.first)];
    const double seconds = static_cast<double>(s.transit) / 1e9;
    groups.push_back(
        {{"group", group_label(g)},
         {"name", g.name},
         {"tag", g.tag},
         {"size", g.size},
         {"ranks", g.ranks},
         {"type", key.second},
         {"calls", s.calls},
         {"bytes", s.bytes},
         {"transit_ns", s.transit},
         {"wait_ns", s.wait},
         {"elapsed_ns", s.elapsed},
         {"algorithm_bandwidth", seconds > 0 ? static_cast<double>(s.bytes) / seconds : 0},
         {"bus_bandwidth", seconds > 0 ? s.bus_bytes / seconds : 0},
         {"calls_without_bytes", s.unknown}});
  }
  Json out{{"groups", groups},
           {"rows", groups},
           {"source", calls.source},
           {"mismatches", calls.mismatches}};
  if (calls.calls.empty()) out["empty"] = no_communication_text();
  return out;
}

Json comm_matrix_json(const Run& run, const CommCalls& calls, std::string_view group,
                      std::string_view type) {
  Json cells = Json::array();
  std::vector<int64_t> ranks = run.ranks();
  for (const auto& link : links_of(run, calls, group, type)) {
    cells.push_back(
        {{"src", link.src},
         {"dst", link.dst},
         {"bytes", link.bytes},
         {"time_ns", link.time_ns},
         {"bandwidth", link.bandwidth()},
         {"count", link.count},
         {"transport", link.transport},
         {"large_share",
          link.count ? static_cast<double>(link.large) / static_cast<double>(link.count) : 0},
         {"estimated", link.estimated}});
    for (const auto rank : {link.src, link.dst})
      if (std::ranges::find(ranks, rank) == ranks.end()) ranks.push_back(rank);
  }
  std::ranges::sort(ranks);
  std::vector<std::string> types;
  for (const auto& call : calls.calls)
    if (std::ranges::find(types, call.type) == types.end()) types.push_back(call.type);
  Json out{{"ranks", ranks}, {"types", types}, {"cells", cells}, {"rows", cells}};
  if (cells.empty())
    out["empty"] = calls.calls.empty()
                       ? no_communication_text()
                       : "no message or collective between two profiled ranks; profile more ranks";
  return out;
}

Json comm_calls_json(const CommCalls& calls, std::string_view group, std::string_view type,
                     int64_t offset, int64_t limit, std::string_view sort) {
  std::vector<const CommCall*> chosen;
  for (const auto& call : calls.calls)
    if (in_group(calls, call, group) && has_type(call, type)) chosen.push_back(&call);
  const auto longest_wait = [](const CommCall& c) {
    int64_t most = 0;
    for (const auto& part : c.parts) most = std::max(most, c.wait_ns(part));
    return most;
  };
  if (sort == "-wait_ns")
    std::ranges::stable_sort(chosen, std::ranges::greater(),
                             [&](const auto* c) { return longest_wait(*c); });
  if (sort == "-transit_ns")
    std::ranges::stable_sort(chosen, std::ranges::greater(),
                             [](const auto* c) { return c->transit_ns(); });
  if (sort == "-bytes")
    std::ranges::stable_sort(chosen, std::ranges::greater(),
                             [](const auto* c) { return c->bytes; });
  Json rows = Json::array();
  const auto first = static_cast<size_t>(std::max<int64_t>(0, offset));
  for (size_t i = first;
       i < chosen.size() && i < first + static_cast<size_t>(std::max<int64_t>(0, limit)); ++i) {
    const CommCall& c = *chosen[i];
    const auto& g = calls.groups[static_cast<size_t>(c.group)];
    Json parts = Json::array();
    for (const auto& p : c.parts)
      parts.push_back({{"rank", p.rank},
                       {"id", slice_id(p.file, p.event)},
                       {"begin_ns", p.begin_ns},
                       {"end_ns", p.end_ns},
                       {"wait_ns", c.wait_ns(p)}});
    const int64_t transit = c.transit_ns();
    const double algorithm = transit > 0 && c.bytes > 0
                                 ? static_cast<double>(c.bytes) / static_cast<double>(transit) * 1e9
                                 : 0;
    rows.push_back({{"group", group_label(g)},
                    {"tag", g.tag},
                    {"type", c.type},
                    {"sequence", c.sequence},
                    {"bytes", c.bytes},
                    {"src", c.src},
                    {"dst", c.dst},
                    {"complete", c.complete},
                    {"begin_ns", c.parts.front().begin_ns},
                    {"transit_ns", transit},
                    {"wait_ns", longest_wait(c)},
                    {"algorithm_bandwidth", algorithm},
                    {"bus_bandwidth", algorithm * bus_factor(c.type, g.size)},
                    {"parts", std::move(parts)}});
  }
  Json out{{"rows", std::move(rows)}, {"total", chosen.size()}};
  if (calls.calls.empty()) out["empty"] = no_communication_text();
  return out;
}

Json comm_ranks_json(const CommCalls& calls, std::string_view group) {
  Json rows = Json::array();
  for (const auto& r : rank_comm(calls, group))
    rows.push_back({{"rank", r.rank},
                    {"calls", r.calls},
                    {"elapsed_ns", r.elapsed_ns},
                    {"transit_ns", r.transit_ns},
                    {"wait_ns", r.wait_ns},
                    {"sync_ratio", r.sync_ratio()},
                    {"late_ns", r.late_ns / static_cast<double>(std::max<int64_t>(1, r.calls))},
                    {"last_share", r.last_share}});
  Json out{{"rows", std::move(rows)}};
  if (out["rows"].empty()) out["empty"] = no_communication_text();
  return out;
}

Json comm_links_json(const Run& run, const CommCalls& calls) {
  Json slow = Json::array(), rows = Json::array();
  for (const auto& s : slow_links(run, calls))
    slow.push_back({{"src", s.src},
                    {"dst", s.dst},
                    {"bandwidth", s.bandwidth},
                    {"usual_bandwidth", s.usual},
                    {"z", s.z},
                    {"messages", s.messages},
                    {"estimated", s.estimated}});
  for (const auto& link : links_of(run, calls, "", ""))
    rows.push_back({{"src", link.src},
                    {"dst", link.dst},
                    {"transport", link.transport},
                    {"bytes", link.bytes},
                    {"time_ns", link.time_ns},
                    {"bandwidth", link.bandwidth()},
                    {"count", link.count},
                    {"large", link.large},
                    {"estimated", link.estimated}});
  Json out{{"rows", std::move(rows)}, {"slow", std::move(slow)}};
  if (calls.calls.empty()) out["empty"] = no_communication_text();
  return out;
}

}  // namespace triptych::insight

#include "insight/comm_calls.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include "insight/work_class.h"

namespace triptych::insight {
namespace {

enum class Source { kNothing, kRecords, kKernels, kGloo, kC10d };

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// Which of the forms of section 2.3 this trace has.
Source source_of(const Trace& t) {
  bool kernels = false, gloo = false, c10d = false;
  for (EventId e = 0; e < t.num_events(); ++e) {
    const Category c = t.category(e);
    if (c == Category::kCollective) return Source::kRecords;
    if (t.work(e) != Work::kCommunication) continue;
    kernels = kernels || c == Category::kKernel;
    gloo = gloo || c == Category::kUserAnnotation;
    c10d = c10d || c == Category::kCpuOp;
  }
  if (kernels) return Source::kKernels;
  if (gloo) return Source::kGloo;
  return c10d ? Source::kC10d : Source::kNothing;
}

bool belongs(Source source, const Trace& t, EventId e) {
  switch (source) {
    case Source::kRecords:
      return t.category(e) == Category::kCollective;
    case Source::kKernels:
      return t.category(e) == Category::kKernel && t.work(e) == Work::kCommunication;
    case Source::kGloo:
      return t.category(e) == Category::kUserAnnotation && t.work(e) == Work::kCommunication;
    case Source::kC10d:
      return t.category(e) == Category::kCpuOp && t.work(e) == Work::kCommunication;
    default:
      return false;
  }
}

/// Members of a process group by its name in the header, for lists that events abbreviate.
std::vector<int64_t> ranks_of_config(const Trace& t, std::string_view group) {
  std::vector<int64_t> ranks;
  const auto& m = t.metadata();
  if (group.empty() || !m.contains("distributedInfo") || !m["distributedInfo"].is_object() ||
      !m["distributedInfo"].contains("pg_config") || !m["distributedInfo"]["pg_config"].is_array())
    return ranks;
  for (const auto& g : m["distributedInfo"]["pg_config"]) {
    if (!g.is_object() || !g.contains("pg_name") || !g["pg_name"].is_string() ||
        g["pg_name"].get<std::string>() != group || !g.contains("ranks"))
      continue;
    if (g["ranks"].is_array()) {
      for (const auto& r : g["ranks"])
        if (r.is_number_integer()) ranks.push_back(r.get<int64_t>());
    } else if (g["ranks"].is_string()) {
      ranks = parse_ranks(g["ranks"].get<std::string>());
    }
  }
  return ranks;
}

class Matcher {
 public:
  Matcher(const Run& run, int64_t span) : run_(run), span_(span) {}

  CommCalls match() {
    for (const int file : run_.files_of_span(span_)) add_file(file);
    for (auto& [key, call] : calls_) {
      std::ranges::sort(call.parts, {}, &CommPart::rank);
      auto& group = out_.groups[static_cast<size_t>(call.group)];
      for (const auto& part : call.parts)
        if (!listed_[static_cast<size_t>(call.group)] &&
            !std::ranges::binary_search(group.ranks, part.rank)) {
          group.ranks.push_back(part.rank);
          std::ranges::sort(group.ranks);
        }
      out_.calls.push_back(std::move(call));
    }
    for (auto& group : out_.groups)
      if (group.size == 0) group.size = static_cast<int64_t>(group.ranks.size());
    for (auto& call : out_.calls) {
      const auto& group = out_.groups[static_cast<size_t>(call.group)];
      call.complete = call.parts.size() >=
                      (call.message ? 2u : std::max<size_t>(1, static_cast<size_t>(group.size)));
    }
    std::ranges::stable_sort(out_.calls, {},
                             [](const CommCall& c) { return c.parts.front().begin_ns; });
    return std::move(out_);
  }

 private:
  struct Key {
    int group;
    std::string order;  ///< what numbers the calls: "" for Seq, the type where they are counted
    int64_t number;
    bool operator<(const Key& o) const {
      return std::tie(group, order, number) < std::tie(o.group, o.order, o.number);
    }
  };

  void add_file(int file) {
    const auto& t = run_.files()[static_cast<size_t>(file)].trace;
    const Source source = source_of(t);
    static constexpr const char* kNames[] = {"", "mm_comm", "nccl kernels", "gloo", "c10d"};
    if (source != Source::kNothing) out_.source = kNames[static_cast<int>(source)];
    std::vector<EventId> events;
    for (EventId e = 0; e < t.num_events(); ++e)
      if (belongs(source, t, e)) events.push_back(e);
    std::ranges::stable_sort(events, {}, [&](EventId e) { return t.ts(e); });
    std::map<std::pair<int, std::string>, int64_t> counts;
    for (const EventId e : events) add_event(file, t, e, counts);
  }

  int group_of(const std::string& key, CommGroup group, bool listed) {
    const auto [at, added] = group_index_.try_emplace(key, static_cast<int>(out_.groups.size()));
    if (added) {
      out_.groups.push_back(std::move(group));
      listed_.push_back(listed);
    }
    return at->second;
  }

  void add_event(int file, const Trace& t, EventId e,
                 std::map<std::pair<int, std::string>, int64_t>& counts) {
    const auto& run_file = run_.files()[static_cast<size_t>(file)];
    const Collective* c = t.collective(e);
    std::string type = collective_type(c && c->name ? t.string(c->name) : t.name(e));
    if (type == "barrier" || type == "wait") return;
    int64_t src = -1, dst = -1;
    const bool message = type == "send" || type == "recv" || type == "send_recv";
    if (c && message) src = c->src_rank, dst = c->dst_rank;
    if (message && type == "send" && src < 0) src = run_file.rank;
    if (message && type == "recv" && dst < 0) dst = run_file.rank;
    if (message && (src < 0 || dst < 0)) {
      const auto* op =
          t.op(e);  // c10d::send(tensors, group, peer, tag): the third value is the peer
      const auto peer = op ? peer_of(t.string(op->concrete)) : -1;
      if (type == "send") dst = peer;
      if (type == "recv") src = peer;
    }
    const std::string tag = c ? std::string(t.string(c->group_tag)) : "";
    CommGroup group{.name = c ? std::string(t.string(c->group)) : "", .tag = tag};
    std::string key;
    bool listed = false;
    // Our own records number a message alike on both ends, others each end for itself.
    const bool numbered = t.category(e) == Category::kCollective && c && c->sequence >= 0;
    if (message && src >= 0 && dst >= 0) {
      // "pp 0 to 1"; our own groups have a purpose: "pipeline forward 0 to 1".
      const bool purpose = numbered && !group.name.starts_with(tag);
      const auto stem = purpose ? group.name : tag;
      group.name =
          (stem.empty() ? "" : stem + " ") + std::to_string(src) + " to " + std::to_string(dst);
      group.ranks = {std::min(src, dst), std::max(src, dst)};
      group.size = 2;
      listed = true;
      key = "message " + std::to_string(src) + ">" + std::to_string(dst) + " " +
            (purpose ? group.name : tag);
    } else {
      group.ranks = c ? parse_ranks(t.string(c->group_ranks)) : std::vector<int64_t>();
      if (group.ranks.empty()) group.ranks = ranks_of_config(t, group.name);
      listed = !group.ranks.empty();
      std::ranges::sort(group.ranks);
      group.size =
          c && c->group_size > 0 ? c->group_size : static_cast<int64_t>(group.ranks.size());
      key = "group " + group.name + " " + tag + " ";
      for (const auto r : group.ranks) key += std::to_string(r) + ",";
    }
    const int index = group_of(key, std::move(group), listed);
    Key call_key{index, "", c ? c->sequence : -1};
    // Both ends of a link count their own messages: the n-th sent is the n-th received.
    if (numbered && message) {
      call_key.order = "message";
    } else if (call_key.number < 0 || message) {
      call_key.order = message ? "message" : type;
      call_key.number = counts[{index, message ? type : call_key.order}]++;
    }
    if (message) type = "send_recv";
    add_part(call_key, type, message, src, dst, c ? c->bytes : -1,
             {file, run_file.rank, e, run_.aligned(file, t.ts(e)), run_.aligned(file, t.end(e))});
  }

  void add_part(const Key& key, const std::string& type, bool message, int64_t src, int64_t dst,
                int64_t bytes, CommPart part) {
    const auto [at, added] = calls_.try_emplace(key);
    CommCall& call = at->second;
    if (added) {
      call.group = key.group;
      call.type = type;
      call.sequence = key.number;
      call.bytes = bytes;
      call.message = message;
      call.src = src;
      call.dst = dst;
    } else if (call.type != type ||
               (call.bytes != bytes && bytes >= 0 && call.bytes >= 0 && !has(type, "all_to_all"))) {
      const auto& group = out_.groups[static_cast<size_t>(key.group)];
      if (out_.mismatches.size() < 100)
        out_.mismatches.push_back(
            (group.name.empty() ? "a group" : "group " + group.name) + ", call " +
            std::to_string(key.number) + ": " + call.type + " of " + std::to_string(call.bytes) +
            " bytes on rank " + std::to_string(call.parts.front().rank) + ", " + type + " of " +
            std::to_string(bytes) + " bytes on rank " + std::to_string(part.rank));
      if (call.type != type) return;
    }
    if (call.bytes < 0) call.bytes = bytes;
    // Gloo's records do not name the peer: each end knows itself.
    if (call.src < 0) call.src = src;
    if (call.dst < 0) call.dst = dst;
    call.parts.push_back(part);
  }

  static int64_t peer_of(std::string_view concrete) {
    // ["", "", "1", "0"]
    size_t at = 0;
    for (int field = 0; field < 3; ++field) {
      const auto open = concrete.find('"', at);
      if (open == std::string_view::npos) return -1;
      const auto close = concrete.find('"', open + 1);
      if (close == std::string_view::npos) return -1;
      if (field == 2) {
        int64_t peer = -1;
        std::from_chars(concrete.data() + open + 1, concrete.data() + close, peer);
        return peer;
      }
      at = close + 1;
    }
    return -1;
  }

  const Run& run_;
  int64_t span_;
  CommCalls out_;
  std::vector<bool> listed_;
  std::map<std::string, int> group_index_;
  std::map<Key, CommCall> calls_;
};

}  // namespace

CommCalls match_calls(const Run& run, int64_t span) { return Matcher(run, span).match(); }

int64_t CommCall::begin_star_ns() const {
  int64_t latest = INT64_MIN;
  for (const auto& part : parts) latest = std::max(latest, part.begin_ns);
  return latest;
}

int64_t CommCall::transit_ns() const {
  int64_t end = INT64_MIN;
  for (const auto& part : parts) end = std::max(end, part.end_ns);
  const int64_t begin = begin_star_ns();
  if (message && parts.size() == 2) {
    // A message that was gone before the receiver asked for it took as long as the sender's record.
    const auto& sender = parts[parts[0].rank == src ? 0 : 1];
    if (sender.end_ns <= begin && sender.begin_ns < begin) return sender.end_ns - sender.begin_ns;
  }
  return std::max<int64_t>(end - begin, 0);
}

int64_t CommCall::wait_ns(const CommPart& part) const {
  return std::max<int64_t>(0, std::min(begin_star_ns(), part.end_ns) - part.begin_ns);
}

std::string collective_type(std::string_view name) {
  std::string lower;
  for (const char c : name.substr(0, name.find_first_of("(<")))
    if (c != '_' && c != ':' && c != '-')
      lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  struct Pair {
    const char *part, *type;
  };
  static constexpr Pair kPairs[] = {{"reducescatter", "reduce_scatter"},
                                    {"allreduce", "all_reduce"},
                                    {"allgather", "all_gather"},
                                    {"alltoall", "all_to_all"},
                                    {"sendrecv", "send_recv"},
                                    {"broadcast", "broadcast"},
                                    {"scatter", "scatter"},
                                    {"gather", "gather"},
                                    {"reduce", "reduce"},
                                    {"barrier", "barrier"},
                                    {"recv", "recv"},
                                    {"receive", "recv"},
                                    {"send", "send"},
                                    {"wait", "wait"}};
  for (const auto& [part, type] : kPairs)
    if (has(lower, part)) return type;
  return std::string(name.substr(0, 64));
}

double bus_factor(std::string_view type, int64_t n) {
  if (n < 2) return 1;
  const double share = static_cast<double>(n - 1) / static_cast<double>(n);
  if (type == "all_reduce") return 2 * share;
  if (type == "all_gather" || type == "reduce_scatter" || type == "all_to_all") return share;
  return 1;
}

std::vector<int64_t> parse_ranks(std::string_view text) {
  std::vector<int64_t> ranks;
  if (has(text, "...")) return ranks;
  for (size_t at = 0; at < text.size();) {
    if (text[at] < '0' || text[at] > '9') {
      ++at;
      continue;
    }
    int64_t value = 0;
    const auto [behind, error] =
        std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc()) return {};
    ranks.push_back(value);
    at = static_cast<size_t>(behind - text.data());
  }
  return ranks;
}

}  // namespace triptych::insight

#include "insight/flame.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <unordered_map>

#include "insight/timeline.h"

namespace triptych::insight {
namespace {

constexpr std::string_view kModule = "nn.Module: ";

struct Node {
  std::string name;
  int parent = -1, depth = 0;
  int64_t calls = 0, total = 0, self = 0, device = 0;
  uint64_t first_id = 0;
};

/// "ProfilerStep#12" -> "ProfilerStep", "F stage 0 chunk 0 micro-batch 3" -> "F stage 0 chunk 0".
std::string_view common_name(std::string_view name) {
  for (const std::string_view mark : {"#", " micro-batch "}) {
    const size_t at = name.rfind(mark);
    if (at == std::string_view::npos || at == 0) continue;
    const auto number = name.substr(at + mark.size());
    if (!number.empty() && number.find_first_not_of("0123456789") == std::string_view::npos)
      return name.substr(0, at);
  }
  return name;
}

class Tree {
 public:
  explicit Tree(const FlameQuery& query) : query_(query) {}

  void add(const Run& run, int file, std::optional<int64_t> step) {
    const Trace& t = run.files()[static_cast<size_t>(file)].trace;
    int64_t from = INT64_MIN, to = INT64_MAX;
    if (query_.range) {
      from = run.unaligned(file, query_.range->first);
      to = run.unaligned(file, query_.range->second);
    }
    if (step && *step >= 0) {
      const auto at = std::ranges::find(t.steps(), *step, &Step::number);
      if (at == t.steps().end()) return;
      from = std::max(from, at->begin_ns), to = std::min(to, at->end_ns);
    }
    const std::set<uint32_t> chosen(query_.tracks.begin(), query_.tracks.end());
    std::vector<int> node(t.num_events(), -1);
    seen_.clear();  // the numbers of names are the trace's
    for (uint32_t k = 0; k < t.tracks().size(); ++k) {
      const Track& track = t.tracks()[k];
      if (track.is_device() || (!chosen.empty() && !chosen.contains(track_id(file, k)))) continue;
      // By depth, so a parent comes before its children.
      for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
        const EventId up = t.parent(e);
        const int above = up == kNone ? -1 : node[up];
        node[e] = above;
        const int64_t time = std::min(t.end(e), to) - std::max(t.ts(e), from);
        if (time < 0 || t.ts(e) >= to || !belongs(t, e)) continue;
        const int at = node[e] = child(above, t, t.name_id(e));
        Node& n = nodes_[static_cast<size_t>(at)];
        if (n.calls++ == 0) n.first_id = slice_id(file, e);
        n.total += time;
        n.self += time;
        if (above >= 0) nodes_[static_cast<size_t>(above)].self -= time;
      }
    }
    for (const Track& track : t.tracks()) {
      if (!track.is_device()) continue;
      for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
        if (t.linked(e) == kNone || t.work(e) == Work::kNone) continue;
        for (int at = node[t.linked(e)]; at >= 0; at = nodes_[static_cast<size_t>(at)].parent)
          nodes_[static_cast<size_t>(at)].device += t.dur(e);
      }
    }
  }

  Json document() const {
    std::vector<int> order(nodes_.size());
    std::iota(order.begin(), order.end(), 0);
    // A parent lasts at least as long as its children and was made before them, so the longest
    // nodes are a tree as well.
    const auto weight = [&](int i) {
      const Node& n = nodes_[static_cast<size_t>(i)];
      return std::max(n.total, n.device);
    };
    std::ranges::stable_sort(order, std::ranges::greater(), weight);
    if (order.size() > query_.limit) order.resize(query_.limit);
    std::ranges::sort(order);
    std::vector<int> place(nodes_.size(), -1);
    Json nodes = Json::array();
    int64_t total = 0;
    for (const int i : order) {
      const Node& n = nodes_[static_cast<size_t>(i)];
      if (n.parent >= 0 && place[static_cast<size_t>(n.parent)] < 0) continue;
      if (n.parent < 0) total += n.total;
      place[static_cast<size_t>(i)] = static_cast<int>(nodes.size());
      nodes.push_back({{"name", display_name(n.name)},
                       {"parent", n.parent < 0 ? -1 : place[static_cast<size_t>(n.parent)]},
                       {"depth", n.depth},
                       {"calls", n.calls},
                       {"total_ns", n.total},
                       {"self_ns", std::max<int64_t>(0, n.self)},
                       {"device_ns", n.device},
                       {"first_id", n.first_id}});
    }
    Json out{{"total_ns", total}, {"left_out", nodes_.size() - nodes.size()}};
    out["nodes"] = std::move(nodes);
    return out;
  }

 private:
  bool belongs(const Trace& t, EventId e) const {
    if (query_.modules) return t.name(e).starts_with(kModule);
    return t.category(e) != Category::kSpan && t.category(e) != Category::kOverhead;
  }

  int child(int parent, const Trace& t, StringId id) {
    const auto [memo, is_new] = seen_.try_emplace(static_cast<uint64_t>(parent + 1) << 32 | id, 0);
    if (is_new) memo->second = child(parent, t.string(id));
    return memo->second;
  }

  int child(int parent, std::string_view name) {
    name = common_name(name);
    if (query_.modules) name.remove_prefix(kModule.size());
    const auto [at, added] =
        index_.try_emplace({parent, std::string(name)}, static_cast<int>(nodes_.size()));
    if (added) {
      Node n;
      n.name = name;
      n.parent = parent;
      n.depth = parent < 0 ? 0 : nodes_[static_cast<size_t>(parent)].depth + 1;
      nodes_.push_back(std::move(n));
    }
    return at->second;
  }

  const FlameQuery& query_;
  std::vector<Node> nodes_;
  std::map<std::pair<int, std::string>, int> index_;
  std::unordered_map<uint64_t, int> seen_;  ///< (parent, name of this trace) -> node
};

}  // namespace

Json flame_json(const Run& run, const std::vector<int>& files, std::optional<int64_t> step,
                const FlameQuery& query) {
  Tree tree(query);
  for (const int file : files) tree.add(run, file, step);
  Json out = tree.document();
  if (out["nodes"].empty())
    out["empty"] = query.modules
                       ? "no module scopes were recorded here; set profile.with_stack = true"
                       : "the host recorded nothing here; set profile.with_cpu = true";
  return out;
}

}  // namespace triptych::insight

#include <algorithm>
#include <map>

#include "profile/recorder.h"

namespace triptych {

namespace {

using Chain = std::vector<const ModuleRun*>;  // outermost first

/// The modules around each node, by a sweep over nodes and runs of one forward thread in the order
/// of numbers. Runs nest or are apart.
void find_chains(std::vector<const ModuleRun*> runs,
                 std::vector<std::pair<int64_t, Chain*>> nodes) {
  std::sort(runs.begin(), runs.end(), [](const auto* a, const auto* b) {
    return a->first != b->first ? a->first < b->first : a->last > b->last;
  });
  std::sort(nodes.begin(), nodes.end());
  Chain open;
  size_t next = 0;
  for (const auto& [number, chain] : nodes) {
    for (; next < runs.size() && runs[next]->first <= number; ++next) {
      while (!open.empty() && open.back()->last <= runs[next]->first) open.pop_back();
      open.push_back(runs[next]);
    }
    while (!open.empty() && open.back()->last <= number) open.pop_back();
    *chain = open;
  }
}

}  // namespace

std::vector<OwnScope> backward_modules(const std::vector<ModuleRun>& modules,
                                       std::vector<NodeRun> nodes) {
  std::sort(nodes.begin(), nodes.end(), [](const NodeRun& a, const NodeRun& b) {
    return a.thread != b.thread ? a.thread < b.thread : a.begin_ns < b.begin_ns;
  });
  std::vector<Chain> chains(nodes.size());
  std::map<uint64_t, std::vector<const ModuleRun*>> runs;
  std::map<uint64_t, std::vector<std::pair<int64_t, Chain*>>> numbers;
  for (const auto& run : modules) runs[run.thread].push_back(&run);
  for (size_t i = 0; i < nodes.size(); ++i)
    numbers[nodes[i].forward_thread].emplace_back(nodes[i].number, &chains[i]);
  for (auto& [thread, list] : numbers) find_chains(runs[thread], std::move(list));

  std::vector<OwnScope> scopes;
  struct Open {
    const ModuleRun* run;
    size_t scope;
  };
  std::vector<Open> open;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (i > 0 && nodes[i].thread != nodes[i - 1].thread) open.clear();
    // A gradient's accumulation has no number of its own: it neither ends nor begins a module.
    if (chains[i].empty() && nodes[i].number < 0) continue;
    size_t same = 0;
    while (same < open.size() && same < chains[i].size() && open[same].run == chains[i][same])
      ++same;
    open.resize(same);
    for (size_t depth = same; depth < chains[i].size(); ++depth) {
      open.push_back({chains[i][depth], scopes.size()});
      scopes.push_back({chains[i][depth]->name, nodes[i].begin_ns, 0, nodes[i].thread});
    }
    for (const auto& [run, scope] : open)
      scopes[scope].end_ns = std::max(scopes[scope].end_ns, nodes[i].end_ns);
  }
  return scopes;
}

}  // namespace triptych

#include "parallel/shard_groups.h"

#include <algorithm>
#include <map>

#include "base/format.h"
#include "parallel/process_context.h"

namespace triptych {

void validate_zero_group(const ZeroGroupChoice& choice, int64_t gradient_ranks,
                         Problems& problems) {
  const auto* count = std::get_if<int64_t>(&choice);
  if (count == nullptr || gradient_ranks % *count == 0) return;
  std::string allowed;
  for (int64_t d = 1; d <= gradient_ranks; ++d) {
    if (gradient_ranks % d == 0) allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", d);
  }
  problems.add(fmt::format(
      "parallel.zero_group = {} does not divide the {} ranks (data x context) that share the "
      "shards; allowed: {}",
      *count, gradient_ranks, allowed));
}

void validate_zero_hosts(const ZeroGroupChoice& choice, const Mesh& mesh, int64_t ranks_per_host,
                         Problems& problems) {
  const auto* named = std::get_if<ZeroGroup>(&choice);
  if (named == nullptr || *named != ZeroGroup::kHost) return;
  for (const auto& members : mesh.groups(kGradientGroup)) {
    std::map<int64_t, int64_t> of_host;
    for (const auto rank : members) ++of_host[rank / ranks_per_host];
    for (const auto& [host, count] : of_host) {
      if (count == of_host.begin()->second) continue;
      problems.add("parallel.zero_group = \"host\": of the ", members.size(),
                   " ranks (data x context) that share the shards host ", of_host.begin()->first,
                   " holds ", of_host.begin()->second, " and host ", host, " holds ", count,
                   "; each must hold as many");
      return;
    }
  }
}

ShardRanks shard_ranks(const std::vector<int64_t>& members, int64_t rank,
                       const ZeroGroupChoice& choice, int64_t ranks_per_host) {
  const auto size = static_cast<int64_t>(members.size());
  std::vector<std::vector<int64_t>> groups;
  if (const auto* count = std::get_if<int64_t>(&choice)) {
    Problems problems;
    validate_zero_group(choice, size, problems);
    problems.throw_if_any();
    for (int64_t i = 0; i < size; ++i) {
      if (i % *count == 0) groups.emplace_back();
      groups.back().push_back(members[static_cast<size_t>(i)]);
    }
  } else if (std::get<ZeroGroup>(choice) == ZeroGroup::kHost) {
    std::map<int64_t, std::vector<int64_t>> by_host;
    for (const auto r : members) by_host[r / ranks_per_host].push_back(r);
    for (auto& [host, ranks] : by_host) groups.push_back(std::move(ranks));
  } else {
    groups.push_back(members);
  }
  ShardRanks result;
  int64_t place = -1;
  for (const auto& group : groups) {
    require<UsageError>(group.size() == groups.front().size(),
                        "parallel.zero_group = \"host\": one host holds ", groups.front().size(),
                        " and another ", group.size(),
                        " of the ranks that share parameters; each must hold as many");
    const auto it = std::find(group.begin(), group.end(), rank);
    if (it == group.end()) continue;
    result.shards = group;
    place = it - group.begin();
  }
  require(place >= 0, "shard groups: rank ", rank, " is not among those that share parameters");
  for (const auto& group : groups) result.replicas.push_back(group[static_cast<size_t>(place)]);
  return result;
}

ShardGroups shard_groups(ProcessContext& process, int64_t zero, const ZeroGroupChoice& choice) {
  const auto members = process.mesh().ranks(kGradientGroup, process.rank());
  const auto ranks =
      shard_ranks(members, process.rank(), zero == 0 ? ZeroGroupChoice(int64_t{1}) : choice,
                  process.local_world_size());
  const auto group = [&](const std::vector<int64_t>& of, const char* purpose) -> Group* {
    return of.size() == 1 ? nullptr : &process.group(of, purpose);
  };
  return {.shards = group(ranks.shards, "shards"), .replicas = group(ranks.replicas, "replicas")};
}

}  // namespace triptych

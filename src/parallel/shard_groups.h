#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "base/error.h"
#include "parallel/options.h"

namespace triptych {

class Group;
class Mesh;
class ProcessContext;

/// Who shares shards with whom, among the ranks that hold the same parameters (data x context). A
/// shard group holds every sharded tensor once, each of its ranks a part; ranks that hold the same
/// part in different shard groups are replicas of each other and sum their parts up. Sharding over
/// all of them has no replicas; ZeRO-0 has replicas alone.
struct ShardGroups {
  Group* shards = nullptr;    ///< null: this rank alone
  Group* replicas = nullptr;  ///< null: this rank alone
};

/// As `parallel.zero_group`.
using ZeroGroupChoice = std::variant<ZeroGroup, int64_t>;

struct ShardRanks {
  std::vector<int64_t> shards, replicas;  ///< ascending; both hold `rank`
};

/// @param members         ranks that hold the same parameters, ascending
/// @param rank            one of them
/// @param ranks_per_host  hosts hold consecutive ranks
/// @throws UsageError where the members do not fall into groups of equal size.
ShardRanks shard_ranks(const std::vector<int64_t>& members, int64_t rank,
                       const ZeroGroupChoice& choice, int64_t ranks_per_host);

/// A count must divide the ranks that hold the same parameters.
void validate_zero_group(const ZeroGroupChoice& choice, int64_t gradient_ranks, Problems& problems);
/// "host": every host must hold as many of the ranks that hold the same parameters.
void validate_zero_hosts(const ZeroGroupChoice& choice, const Mesh& mesh, int64_t ranks_per_host,
                         Problems& problems);

/// This rank's, with connections of their own: their collectives are ordered by the backward of
/// each rank, whatever others run over the same ranks at the same time.
ShardGroups shard_groups(ProcessContext& process, int64_t zero, const ZeroGroupChoice& choice);

}  // namespace triptych

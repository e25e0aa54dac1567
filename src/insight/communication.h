#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "insight/comm_calls.h"

namespace triptych::insight {

/// One directed link between two ranks, over all messages and the parts of collectives that a ring
/// or a mesh would send over it.
struct Link {
  int64_t src = 0, dst = 0;
  double bytes = 0;
  double time_ns = 0;
  int64_t count = 0;
  bool estimated = false;  ///< from collectives: which links carried what is an assumption
  std::string transport;   ///< "same host" or "other host"
  /// Messages above 1 MiB that were waited for from their beginning: bandwidths are judged by them.
  int64_t large = 0;
  std::vector<double> bandwidths;  ///< bytes per s of the large messages
  /// Bytes per s of all messages above 1 MiB from their sending to their receipt: of one that was
  /// not waited for, what its link carries at least.
  std::vector<double> at_least;
  double bandwidth() const { return time_ns > 0 ? bytes / time_ns * 1e9 : 0; }
};

/// group and type "" mean all; step as the caller filters. Links are by (src, dst).
std::vector<Link> links_of(const Run& run, const CommCalls& calls, std::string_view group,
                           std::string_view type);

/// One rank's behaviour in the collectives that it shares with others.
struct RankComm {
  int64_t rank = 0;
  int64_t calls = 0;
  double elapsed_ns = 0, transit_ns = 0, wait_ns = 0;
  double late_ns = 0;     ///< sum over calls of begin - median begin
  double last_share = 0;  ///< share of the calls to which it came last
  double sync_ratio() const {
    return wait_ns + transit_ns > 0 ? wait_ns / (wait_ns + transit_ns) : 0;
  }
};
std::vector<RankComm> rank_comm(const CommCalls& calls, std::string_view group);

/// A link far below its like, with the evidence.
struct SlowLink {
  int64_t src = 0, dst = 0;
  double bandwidth = 0, usual = 0;  ///< bytes per s: its median, and what links of its class carry
  double z = 0;
  int64_t messages = 0;
  bool estimated = false;
  double excess_ns = 0;  ///< what all its messages took longer than at the usual bandwidth
};
/// Of a class of more than two links those below half of its median. Of two, which may differ by
/// how busy their ends are, one whose fast messages (the 0.9 quantile) are below half of the
/// other's. A link that nobody waits for is not judged, but counts among the others with what it
/// carries at least.
std::vector<SlowLink> slow_links(const Run& run, const CommCalls& calls);

std::string group_label(const CommGroup& group);

// The documents of the endpoints comm/*.
Json comm_groups_json(const CommCalls& calls);
Json comm_matrix_json(const Run& run, const CommCalls& calls, std::string_view group,
                      std::string_view type);
Json comm_calls_json(const CommCalls& calls, std::string_view group, std::string_view type,
                     int64_t offset, int64_t limit, std::string_view sort);
Json comm_ranks_json(const CommCalls& calls, std::string_view group);
Json comm_links_json(const Run& run, const CommCalls& calls);

/// The calls that begin within a step of the rank that came first.
CommCalls calls_of_step(const Run& run, const CommCalls& calls, int64_t step);

/// What to say where there is nothing to show.
std::string no_communication_text();

}  // namespace triptych::insight

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "insight/run.h"

namespace triptych::insight {

/// One rank's part of a call. Times in ns since Run::origin_ns(), clocks aligned.
struct CommPart {
  int file = 0;
  int64_t rank = 0;
  EventId event = 0;
  int64_t begin_ns = 0, end_ns = 0;
};

/// One collective, or one message, matched over the ranks that were profiled.
struct CommCall {
  int group = 0;         ///< into CommCalls::groups
  std::string type;      ///< "all_reduce", "all_gather", "send_recv", ...
  int64_t sequence = 0;  ///< within the group
  int64_t bytes = -1;    ///< payload S of section 2.3; -1 unknown
  bool message = false;
  int64_t src = -1, dst = -1;
  bool complete = false;        ///< every member of the group is here
  std::vector<CommPart> parts;  ///< by rank

  int64_t begin_star_ns() const;  ///< when the last rank came
  int64_t transit_ns() const;     ///< from then to the end; of one part: its duration
  int64_t wait_ns(const CommPart& part) const;
};

struct CommGroup {
  std::string name, tag;
  std::vector<int64_t> ranks;  ///< members as recorded, else those seen
  int64_t size = 0;
};

struct CommCalls {
  std::vector<CommGroup> groups;
  std::vector<CommCall> calls;          ///< by begin
  std::vector<std::string> mismatches;  ///< calls whose name or size differs between ranks
  std::string source;                   ///< "mm_comm", "nccl kernels", "gloo", "c10d", ""
};

/// Matches the calls of one span by (group, Seq), or by order where no Seq was recorded.
CommCalls match_calls(const Run& run, int64_t span = -1);

/// "all_reduce" for "allreduce", "c10d::allreduce_", "ncclDevKernel_AllReduce...".
std::string collective_type(std::string_view name);

/// Factor from algorithm to bus bandwidth of n ranks; section 3.8.
double bus_factor(std::string_view type, int64_t n);

/// "[0, 1, 2]" as numbers; empty where it is abbreviated.
std::vector<int64_t> parse_ranks(std::string_view text);

}  // namespace triptych::insight

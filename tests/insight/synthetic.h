#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace triptych::insight {

/// Traces of a made-up training run with known faults, in the form that Kineto writes. The same
/// seed gives the same bytes. A small simulation makes the ranks agree: a collective ends for all
/// when the last one has come and the slowest link is done; a message arrives when its link has
/// carried it.
struct SyntheticOptions {
  int data = 2;      ///< ranks of a data-parallel group
  int pipeline = 1;  ///< stages; rank = stage * data + data rank
  int ranks_per_host = 8;
  int steps = 4;
  int layers = 6;         ///< per stage
  int ops_per_layer = 5;  ///< operators (and kernels) of one layer's forward
  int micro_batches = 4;
  bool device = true;   ///< kernels on streams; false: a run on the CPU with mm_comm records
  bool overlap = true;  ///< gradients are reduced while backward goes on
  bool memory = true;   ///< allocation records
  bool shapes = true;
  bool fractions = true;             ///< times with three decimals; false: whole microseconds
  int64_t compute_ns = 200000;       ///< one operator
  int64_t gradient_bytes = 4 << 20;  ///< of one layer
  int64_t message_bytes = 8 << 20;   ///< between stages
  double bytes_per_ns = 10;          ///< of every link: 10 GB/s
  double noise = 0.01;               ///< of each operator's time
  uint64_t seed = 1;

  // faults; -1 and 0: none
  int slow_rank = -1;
  double slow_factor = 1.2;  ///< its operators take this many times as long
  int slow_link_from = -1, slow_link_to = -1;
  double slow_link_share = 0.3;  ///< of the usual bandwidth
  int skewed_host = -1;
  int64_t skew_ns = 3000000;  ///< added to the clock of that host's ranks
  int stalled_rank = -1;
  int64_t stall_ns = 5000000;  ///< its loader is late by so much in every step

  int ranks() const { return data * pipeline; }
};

/// The whole trace of every rank, as JSON text, by rank.
std::vector<std::string> synthetic_traces(const SyntheticOptions& options);

/// Writes them to `folder` as rank-<r>_<pid>.<ns>.pt.trace.json[.gz]; returns the paths by rank.
std::vector<std::filesystem::path> write_synthetic_run(const SyntheticOptions& options,
                                                       const std::filesystem::path& folder,
                                                       bool compress = false);

}  // namespace triptych::insight

#pragma once

// One rank's training step without the other ranks and without values: the program that `train`
// runs, on the meta device, with collectives that are counted instead of sent.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/sample.h"
#include "kernels/meta_memory.h"
#include "parallel/collective_log.h"
#include "parallel/mesh.h"
#include "train/family.h"
#include "train/run_options.h"

namespace triptych {

/// Flop of one micro-batch, the mean of a step's, in one chunk on this rank, attention apart from
/// all other products, and what recompute adds apart from both.
struct ChunkWork {
  double forward = 0, backward_input = 0, backward_weight = 0, recomputed = 0;
  /// Of queries with keys and of probabilities with values. Backward computes the probabilities
  /// again: 2.5 times forward's, with the gradients of what it is given.
  double attention_forward = 0, attention_backward = 0, attention_recomputed = 0;
  friend bool operator==(const ChunkWork&, const ChunkWork&) = default;
};

/// What is known of a rank before it runs.
struct RankPlan {
  int64_t rank = 0;
  MeshCoordinates place;
  MemoryUse memory;         ///< when most is in use during a step
  int64_t start_bytes = 0;  ///< the most in use before the first step (weights move into buckets)
  TrafficTable traffic;     ///< of one optimizer step
  int64_t parameters = 0;   ///< elements that this rank holds, before sharding
  int64_t state_bytes = 0;  ///< optimizer states of this rank, wherever they lie
  /// In the host's memory, where the device is another: optimizer states, and activations that a
  /// step sends there and fetches again.
  int64_t host_state_bytes = 0, offloaded_bytes = 0;
  /// Made by operators during the step: what memory bandwidth and kernel launches are spent on.
  int64_t made_bytes = 0, made_tensors = 0;
  std::vector<ChunkWork> chunks;  ///< of its pipeline stage; one without a pipeline

  int64_t total_bytes() const { return memory.total(); }
  /// In a step or before the first one, whichever takes more.
  int64_t most_bytes() const { return std::max(total_bytes(), start_bytes); }
};

/// Runs one step of rank `rank` of `processes`.
/// @param mesh           from check_layout
/// @param micro_batches  of this rank; pictures may be without pixels. The same number as in
///   training, unless it is only memory that is asked for.
/// @param ranks_per_host what `zero_group = "host"` goes by
/// @throws what the training run would throw before its first step
RankPlan plan_rank(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const std::vector<MicroBatch>& micro_batches,
                   int64_t ranks_per_host = 8);

/// The same over `count` equal micro-batches. Beyond some, memory has reached its peak and each
/// further group adds the same exchanges: those of a longer step follow from two short ones.
RankPlan plan_rank(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const MicroBatch& micro_batch, int64_t count,
                   int64_t ranks_per_host = 8);

/// The same over unlike micro-batches. Of more than twice `most_run` so many, evenly spread by
/// their tokens, are run, once and twice over: each further one adds the same calls, and of
/// everything else their mean.
RankPlan plan_step(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const std::vector<MicroBatch>& micro_batches,
                   int64_t ranks_per_host, int64_t most_run);

/// The most that a step of `count` such micro-batches has in use.
MemoryUse plan_memory(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                      int64_t rank, const MicroBatch& micro_batch, int64_t count,
                      int64_t ranks_per_host = 8);

}  // namespace triptych

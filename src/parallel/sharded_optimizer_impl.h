#pragma once

// What the parts of ShardedOptimizer share; for its own source files only:
//   optimizer_layout.cpp    what lies where: buckets, slices, states
//   gradient_reduction.cpp  from autograd's gradients to summed slices
//   optimizer_state.cpp     reading and replacing states
//   sharded_optimizer.cpp   the step

#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/meta_memory.h"
#include "parallel/flat_layout.h"
#include "parallel/sharded_optimizer.h"
#include "parallel/weight_gradients.h"

namespace triptych {

/// A trained parameter and what has happened to its gradient.
struct TrainedParameter {
  ParameterPtr parameter;
  double weight_decay = 0;
  bool counted = true;       ///< in the norm; false for a copy that another rank counts
  bool summed = false;       ///< over the tensor ranks, after the last backward
  int64_t steps = 0;         ///< updates of this parameter
  bool has_main = false;     ///< `main` holds a gradient
  bool reduced = false;      ///< a gradient of this step has gone into the slices
  bool in_step = false;      ///< some rank has a gradient of this step
  int64_t firings = 0;       ///< of the hook, in this backward
  int64_t expected = 1;      ///< firings of a complete backward, the most seen so far
  Group* shared = nullptr;   ///< pipeline ranks that use it as well; null: none
  int64_t chunk = 0;         ///< the first that uses it
  bool comes_once = false;   ///< `expected` is known before the first backward
  bool of_one_chunk = true;  ///< else backwards of several chunks mix: gradients are not counted
  size_t bucket = 0;
  at::Tensor main;     ///< fp32 sum; a view of the bucket's gradients, or undefined
  at::Tensor touched;  ///< rows with moments, while all gradients were row-sparse
  const std::string& name() const { return parameter->name; }
  at::Tensor& value() const { return parameter->value; }
};

/// The part of one parameter that this rank updates, flat, with its state.
struct OptimizerSlice {
  size_t trained = 0;
  int64_t begin = 0, end = 0;  ///< elements of the parameter
  int64_t in_shard = 0;        ///< its first element there
  at::Tensor weight, exp_avg, exp_avg_sq, low;
  at::Tensor gradient;  ///< view of the bucket's shard; undefined on one rank
};

/// States of a rank's slice of a bucket.
struct BucketStates {
  at::Tensor exp_avg, exp_avg_sq, low;
};

/// Parameters that are reduced and updated together.
struct OptimizerBucket {
  /// Where `trained[i]` lies.
  std::vector<FlatLayout::Slot> slots;
  int64_t elements = 0;
  std::vector<size_t> trained;
  std::vector<OptimizerSlice> slices;
  at::Tensor weights;    ///< all elements; undefined on one rank and with sharded parameters
  at::Tensor gradients;  ///< fp32, all elements; with sharded gradients only until they are reduced
  at::Tensor shard;      ///< fp32, this rank's slice of the gradients
  BucketStates states;   ///< in host memory where they are offloaded
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  int64_t shard_begin = 0, shard_size = 0;
  size_t lowest_layer = 0;  ///< with sharded parameters: where backward leaves it
  int64_t ready = 0;        ///< parameters whose gradient is complete in this backward
  bool launched = false;    ///< in this backward
  bool filled = false;      ///< `shard` holds something of this step
  Pending reduction, gathering;
};

/// Buckets whose gradients are complete together; launched in this order on every rank.
struct OptimizerChunk {
  std::vector<size_t> buckets;
  size_t next = 0;            ///< to be launched
  bool counts_known = false;  ///< a whole backward has been seen: hooks may launch all buckets
};

struct ShardedOptimizer::Impl {
  AdamWSettings adamw;
  ShardingSettings sharding;
  OptimizerGroups groups;
  Group alone;
  bool flat = false;  ///< several ranks: flat buckets
  std::vector<TrainedParameter> trained;
  std::map<std::string, size_t> by_name;
  std::vector<OptimizerBucket> buckets;
  std::vector<OptimizerChunk> chunks;
  int64_t steps = 0;
  int64_t micro_batches = 0, micro_batches_done = 0;
  bool pipelined = false, parted = false;  ///< of this step
  double sum_of_squares = -1;
  bool states_in_flight = false;  ///< on their way to host memory
  std::deque<size_t> in_flight;   ///< buckets with sharded gradients that are being reduced
  std::mutex mutex;               ///< hooks run on autograd's thread of the parameter's device

  Group& gradient_group() const { return *groups.gradients; }
  Group& shard_group() const { return *groups.sharing.shards; }
  Group& replica_group() const { return *groups.sharing.replicas; }
  /// A backward, or a layer's, is over. Not with the mutex held: gradients come of it.
  void run_waiting() const {
    if (groups.waiting) groups.waiting->run_waiting();
  }
  bool shards_gradients() const { return flat && sharding.zero >= 2; }
  bool is_owner(const Parameter& p) const {
    return p.owner == groups.coordinates[MeshDim::kPipeline];
  }
  bool complete() const { return micro_batches > 0 && micro_batches_done == micro_batches; }
  /// Whether gradients go from autograd into fp32 sums of our own.
  bool sums(const TrainedParameter& t) const {
    return flat || (micro_batches > 1 && t.value().scalar_type() != at::kFloat);
  }
  bool offloads(const OptimizerBucket& bucket) const {
    return sharding.offload && !bucket.device.is_cpu() && !planning_cpu_kernels();
  }

  // optimizer_layout.cpp
  void take(const ParameterList& parameters);
  void make_buckets();
  void add_bucket(const std::vector<size_t>& members, const FlatLayout::Bucket& layout);
  void add_unit_buckets();
  void add_slices(OptimizerBucket& bucket, const at::Tensor& shard_weights);
  at::Tensor zero_state(const OptimizerBucket& bucket, at::ScalarType dtype) const;

  // gradient_reduction.cpp
  void install_hooks();
  void on_gradient(size_t index);
  void add_to_main(TrainedParameter& t, const at::Tensor& gradient);
  void open_gradients(size_t index);
  void allocate_gradients(OptimizerBucket& bucket);
  void launch(size_t index);
  void collect(size_t index);
  void launch_ready(OptimizerChunk& chunk);
  void launch_rest(OptimizerChunk& chunk);
  void leave_layer(size_t layer);
  void finish_pass(OptimizerChunk& chunk);
  void finish_reductions();
  void agree_on_gradients();
  void sum_over_tensor_ranks();
  void sum_shared();
  void complete_step();
  void clear_gradients();
  bool has_gradient(const TrainedParameter& t) const {
    return t.has_main || t.reduced || (!flat && t.value().grad().defined());
  }
  at::Tensor sum(const TrainedParameter& t) const;
  /// The tensors that hold this rank's gradient of a parameter: slices, or the sum itself.
  std::vector<at::Tensor> gradient_parts(TrainedParameter& t);

  // sharded_optimizer.cpp
  double local_sum_of_squares() const;
  BucketStates states_on_device(const OptimizerBucket& bucket) const;
  void keep_states(OptimizerBucket& bucket, const BucketStates& states);
  void update(OptimizerBucket& bucket, const BucketStates& states, double learning_rate,
              double factor);
  AdamWTensor adamw_tensor(const OptimizerSlice& slice, const BucketStates& states);
  Pending gather(OptimizerBucket& bucket);

  // optimizer_state.cpp
  const OptimizerSlice& slice(const StateRange& range) const;
  void await_states();
};

/// Row numbers and rows of a coalesced sparse gradient of an embedding.
struct GradientRows {
  at::Tensor numbers, values;
};
GradientRows rows_of(const at::Tensor& sparse, const std::string& name);

}  // namespace triptych

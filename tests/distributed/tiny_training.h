#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "parallel/process_context.h"
#include "parallel/sharded_optimizer.h"

namespace triptych {

/// A training run small enough for hundreds of them: an embedding with row-sparse gradients, two
/// linear layers, a "picture" matrix that only some samples use and one parameter that none uses.
struct TinyRun {
  int64_t global_batch = 12, micro_batch = 1, steps = 5;
  int64_t zero = 1, bucket_elements = 600;  ///< several buckets, parameters across owners
  int64_t zero_group = 0;                   ///< ranks that share shards; 0: all
  bool overlap = true, bf16 = false, decay_all = false;
  bool backward_by_row = false;  ///< several backward calls a micro-batch: hooks fire repeatedly
  double clip_norm = 0.5;
  int64_t nan_step = -1;  ///< rank `nan_rank` gets a gradient that is not a number
  int64_t nan_rank = 0;
  std::string load, save, result;  ///< folders and file; empty: not

  Json to_json() const;
  static TinyRun from_json(const Json& json);
};

struct TinyResult {
  std::vector<double> losses, norms;
  std::vector<bool> updated;
  std::map<std::string, std::vector<double>> weights;
  std::map<std::string, std::vector<double>> states;  ///< "name/kind", whole parameters
  Json to_json() const;
  static TinyResult from_json(const Json& json);
};

TinyResult train_tiny(ProcessContext& process, const TinyRun& run);

/// Largest difference over both, relative to the largest value of each entry.
double difference(const std::map<std::string, std::vector<double>>& a,
                  const std::map<std::string, std::vector<double>>& b);

}  // namespace triptych

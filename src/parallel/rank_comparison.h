#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "base/json.h"

namespace triptych {

/// The start-up check: do all ranks run the same program with the same configuration? Only hashes
/// travel unless they differ.
class RankComparison {
 public:
  struct Self {
    int64_t rank = 0, world_size = 1;
    std::string host_name, device, version;
    Json configuration;
  };
  RankComparison(c10::intrusive_ptr<c10d::Store> store, std::chrono::milliseconds timeout)
      : store_(std::move(store)), timeout_(timeout) {}

  /// @return empty when all agree; else one text, the same on every rank.
  std::string run(const Self& self);

 private:
  std::string wait_and_get(const std::string& key);
  c10::intrusive_ptr<c10d::Store> store_;
  std::chrono::milliseconds timeout_;
};

/// One line for each key in which some configuration differs from the first, with the ranks:
/// "optimizer.lr: 1e-4 on ranks 0, 1; 2e-4 on rank 2".
std::string describe_differences(const std::vector<Json>& by_rank);

}  // namespace triptych

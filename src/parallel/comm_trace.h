#pragma once

// The record of one launched call in an open trace. Internal to this folder.

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

#include "base/trace_scope.h"

namespace triptych {

/// From launch to the end of the wait. Made only while a window is open.
class CommTrace {
 public:
  /// Where the calls of one connection, or the messages to one peer, run one after another: when
  /// the last of them ended. Shared with the calls still on their way.
  using LastEnd = std::shared_ptr<std::atomic<int64_t>>;

  CommTrace(TraceSink& sink, CommRecord record, LastEnd last_end);

  /// Of a message: global ranks.
  void between(int64_t src, int64_t dst) {
    record_.src = src;
    record_.dst = dst;
  }
  /// Learns of the completion where the library tells (collectives of Gloo).
  void watch(c10d::Work& work);
  void wait_begins() { wait_begin_ns_ = trace_time_ns(); }
  /// Hands the record over.
  void wait_ended();

 private:
  TraceSink& sink_;
  CommRecord record_;
  LastEnd last_end_;
  std::shared_ptr<std::atomic<int64_t>> completed_ = std::make_shared<std::atomic<int64_t>>(0);
  int64_t wait_begin_ns_ = 0;
  uint64_t thread_;
};

/// "tp", "cp", "dp", "pp" for groups along one axis and their purposes; else the name itself.
std::string group_tag(const std::string& group_name);

/// "allreduce", as Kineto writes it, for "all_reduce"; "send" for "send to".
std::string trace_type(std::string_view operation);

}  // namespace triptych

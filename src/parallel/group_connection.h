#pragma once

// What a group keeps of its connection and of an exchange that is under way.

#include <ATen/core/Tensor.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "parallel/comm_trace.h"
#include "parallel/group.h"
#include "parallel/group_host.h"

namespace triptych {

/// One launched collective.
struct Pending::Work {
  std::shared_ptr<GroupHost> host;
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;  // alive until it is done
  int64_t record = 0;               // 0: not in the log before it is waited for
  std::string text;
  std::unique_ptr<CommTrace> trace;  // while a window of the profiler is open
};

struct Group::Connection {
  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  c10::intrusive_ptr<c10d::Backend> backend;
  int64_t sequence = 0;
  CommTrace::LastEnd last_end = std::make_shared<std::atomic<int64_t>>(0);
  std::mutex messages;  // a sending and a receiving thread; guards what follows
  /// Messages of one number to (from) one peer so far: both ends count alike.
  std::map<std::tuple<int64_t, bool, int64_t>, int64_t> counts;
  std::map<int64_t, CommTrace::LastEnd> last_sent;
};

/// "{0,2,4}"
std::string members_text(const std::vector<int64_t>& members);

/// " [2, 3] Float"; "" for no tensor.
std::string describe(const at::Tensor& tensor);

/// `launch.check_collectives`: every member says in the store which collective it is about to run,
/// so that a mismatch is an error with both names instead of a hang.
/// @throws PeerError
void compare_records(const GroupHost& host, const std::vector<int64_t>& members, int64_t sequence,
                     const std::string& what);

/// Null unless a window is open. What a device's own stream does is in its kernels' records.
std::unique_ptr<CommTrace> start_trace(const GroupHost& host, const char* operation,
                                       const std::string& group,
                                       const std::vector<int64_t>& members, std::string_view tag,
                                       std::span<const at::Tensor> tensors, int64_t sequence,
                                       CommTrace::LastEnd last_end);

}  // namespace triptych

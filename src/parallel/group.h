#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

class WeightGradients;
struct GroupHost;  // what groups need from the process: store, log of collectives, time-outs

enum class ReduceOp : uint8_t { kSum, kMax, kMin };

/// A collective that was launched and not yet waited for. It keeps its tensors alive. On the CPU
/// `wait` blocks; on CUDA it orders the current stream behind the collective.
class Pending {
 public:
  Pending() = default;  ///< nothing to wait for
  /// Waits; later calls return at once.
  /// @throws PeerError that names rank, host, step, the collective and, where it can be found out,
  ///   the rank at fault. A collective that is never waited for reports nothing.
  void wait();
  bool waiting() const { return work_ != nullptr; }
  /// Whether `wait` would return at once, where the library can tell: NCCL, not Gloo's messages.
  bool done() const;
  /// Ends a `wait` on another thread (of a copy of this) for a message that will not come any more;
  /// that `wait` returns, or throws where the library cannot return. For errors only.
  void abort();

 private:
  friend class Group;
  struct Work;
  std::shared_ptr<Work> work_;
};

/// Processes that exchange tensors, in a fixed order. A group of one is the identity: it owns no
/// connection, and its collectives return at once. Otherwise connections are made by the first
/// collective.
///
/// All members must call the same collectives in the same order, from one thread at a time.
/// `tag` names the place in messages, such as "bucket 3".
/// None of these is differentiable.
class Group {
 public:
  /// A group of one.
  Group();
  /// @param members  global ranks, ascending; must contain the host's own rank.
  Group(std::shared_ptr<GroupHost> host, std::string name, std::vector<int64_t> members);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int64_t rank() const { return rank_; }  ///< place of this process in `members`
  int64_t size() const { return static_cast<int64_t>(members_.size()); }
  const std::vector<int64_t>& members() const { return members_; }  ///< global ranks
  const std::string& name() const { return name_; }

  /// In place; `tensor` must be contiguous. Every member ends with the same bits.
  void all_reduce(const at::Tensor& tensor, ReduceOp op = ReduceOp::kSum,
                  std::string_view tag = {});
  Pending all_reduce_async(const at::Tensor& tensor, ReduceOp op = ReduceOp::kSum,
                           std::string_view tag = {});

  /// output [size * n, ...] = the inputs [n, ...] of all members, one behind the other. `input` may
  /// be this rank's part of `output`.
  void all_gather_into(const at::Tensor& output, const at::Tensor& input,
                       std::string_view tag = {});
  Pending all_gather_into_async(const at::Tensor& output, const at::Tensor& input,
                                std::string_view tag = {});

  /// output [n, ...] = this rank's part of the sum of all inputs [size * n, ...]. Where `output` is
  /// this rank's part of `input`, the rest of `input` holds nothing useful afterwards.
  void reduce_scatter_into(const at::Tensor& output, const at::Tensor& input,
                           std::string_view tag = {});
  Pending reduce_scatter_into_async(const at::Tensor& output, const at::Tensor& input,
                                    std::string_view tag = {});

  /// Rows (along dim 0) for every member: `input` holds input_rows[i] rows for member i, in order,
  /// and `output` gets output_rows[i] rows from member i. Counts may differ and may be 0; what one
  /// member sends another must be what that one expects. Both tensors contiguous, with rows of the
  /// same size.
  void all_to_all(const at::Tensor& output, const at::Tensor& input,
                  std::span<const int64_t> output_rows, std::span<const int64_t> input_rows,
                  std::string_view tag = {});
  Pending all_to_all_async(const at::Tensor& output, const at::Tensor& input,
                           std::span<const int64_t> output_rows,
                           std::span<const int64_t> input_rows, std::string_view tag = {});

  /// Every member's `tensor` becomes that of the member at place `root` in the group.
  void broadcast(const at::Tensor& tensor, int64_t root, std::string_view tag = {});

  /// From this member to the one at place `to`, and the other way round; contiguous tensors of the
  /// same size on both ends. Messages between two members match by `number` (below 2^31), and in
  /// order among those of one number. NCCL knows no numbers: there, all messages of one direction
  /// must be awaited in the order in which they are sent. The watchdog sees them once they are
  /// waited for. After `connect`, two threads may call these at the same time.
  Pending send_async(const at::Tensor& tensor, int64_t to, int64_t number,
                     std::string_view tag = {});
  Pending receive_async(const at::Tensor& tensor, int64_t from, int64_t number,
                        std::string_view tag = {});

  /// Makes the connections now instead of in the first collective; all members call it.
  void connect();

  void barrier(std::string_view tag = {});

  /// Products to be computed while exchanges of backward are under way; null: none. Whoever starts
  /// such an exchange calls `compute_beside` before it waits. That computes half of what waits and
  /// leaves the rest for the next exchange: the same count on every rank that runs the same layers,
  /// whatever the time.
  void keep_busy_with(std::shared_ptr<WeightGradients> products);
  void compute_beside(const Pending& exchange);

  /// The texts of all members, by place in the group. CPU groups only (ProcessContext::control).
  std::vector<std::string> all_gather_strings(const std::string& mine, std::string_view tag = {});

 private:
  struct Connection;
  Connection& connection();
  /// Records, launches and wraps one collective; `call` gets the backend and returns its work.
  template <class Call>
  Pending launch(const char* operation, const at::Tensor& shaped_like, std::string_view tag,
                 std::vector<at::Tensor> tensors, int64_t bytes, const Call& call);
  /// What Gloo copies during a collective is part of what a plan counts.
  void plan_copy(const at::Tensor& copied) const;
  template <class Call>
  Pending message(const char* operation, const at::Tensor& tensor, int64_t peer,
                  std::string_view tag, const Call& call);

  std::shared_ptr<GroupHost> host_;
  std::string name_ = "self";
  std::vector<int64_t> members_ = {0};
  int64_t rank_ = 0;
  std::unique_ptr<Connection> connection_;
  std::shared_ptr<WeightGradients> products_;
};

}  // namespace triptych

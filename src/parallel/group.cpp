#include "parallel/group.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "base/format.h"
#include "base/hash.h"
#include "parallel/group_host.h"

namespace triptych {

namespace {

c10d::ReduceOp to_c10d(ReduceOp op) {
  switch (op) {
    case ReduceOp::kMax: return c10d::ReduceOp::MAX;
    case ReduceOp::kMin: return c10d::ReduceOp::MIN;
    case ReduceOp::kSum: break;
  }
  return c10d::ReduceOp::SUM;
}

std::string list(const std::vector<int64_t>& members) {
  return fmt::format("{{{}}}", fmt::join(members, ","));
}

/// Short for long lists of members, equal on every rank.
std::string store_name(const std::vector<int64_t>& members) {
  const auto text = list(members);
  return members.size() <= 8 ? text : hex64(xxh3_64(text));
}

}  // namespace

/// One launched collective.
struct Pending::Work {
  std::shared_ptr<GroupHost> host;
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;  // alive until it is done
  int64_t record = 0;
  std::string text;
};

void Pending::wait() {
  if (!work_) return;
  const auto work = std::move(work_);
  work_ = nullptr;
  try {
    work->work->wait();
  } catch (const std::exception& error) {
    work->host->fail(work->text, message_of(error));
  }
  work->host->log.end(work->record);
}

struct Group::Connection {
  c10::intrusive_ptr<c10d::Backend> backend;
  c10::DeviceType device = c10::DeviceType::CPU;
  int64_t sequence = 0;
};

Group::Group(std::shared_ptr<GroupHost> host, std::string name, std::vector<int64_t> members)
    : host_(std::move(host)), name_(std::move(name)), members_(std::move(members)) {
  const auto it = std::find(members_.begin(), members_.end(), host_->rank);
  require(it != members_.end(), "group ", name_, " ", list(members_), " does not hold rank ",
          host_->rank);
  rank_ = it - members_.begin();
}

Group::~Group() = default;

namespace {

/// Runs one launch with its record; a failure at launch is reported like one while waiting.
template <class Launch>
c10::intrusive_ptr<c10d::Work> launch_recorded(GroupHost& host, const std::string& text,
                                               const Launch& launch) {
  try {
    return launch();
  } catch (const std::exception& error) {
    host.fail(text, message_of(error));
  }
  return nullptr;
}

/// `launch.check_collectives`: every member says in the store which collective it is about to run,
/// so that a mismatch is an error with both names instead of a hang.
void compare_records(GroupHost& host, const std::vector<int64_t>& members, int64_t sequence,
                     const std::string& what, const std::string& text) {
  const auto key = [&](int64_t rank) {
    return fmt::format("check/{}/{}/{}", store_name(members), sequence, rank);
  };
  host.store->set(key(host.rank), what);
  for (const auto rank : members) {
    std::string other;
    try {
      host.store->wait({key(rank)}, host.timeout);
      other = host.store->get_to_str(key(rank));
    } catch (const std::exception& error) {
      host.fail(text, fmt::format("rank {} did not announce it: {}", rank, message_of(error)));
    }
    require<PeerError>(other == what, "rank ", host.rank, " calls ", what, ", rank ", rank,
                       " calls ", other, "; all ranks of a group must call the same collectives");
  }
}

}  // namespace

Group::Connection& Group::connection() {
  if (connection_) return *connection_;
  auto fresh = std::make_unique<Connection>();
  fresh->device = host_->device;
  const auto text = fmt::format("connecting {} {}", name_, list(members_));
  const auto record = host_->log.begin(text);
  try {
    fresh->backend = make_backend(*host_, host_->device, store_name(members_) + "/" + name_, rank_,
                                  size());
  } catch (const std::exception& error) {
    host_->fail(text, message_of(error));
  }
  host_->log.end(record);
  connection_ = std::move(fresh);
  return *connection_;
}

#define TRIPTYCH_UNUSED
Pending Group::all_reduce_async(const at::Tensor& tensor, ReduceOp op, std::string_view tag) {
  require(tensor.is_contiguous(), "all_reduce of ", name_, ": the tensor must be contiguous");
  return launch("all_reduce", tensor, tag, {tensor}, [&](c10d::Backend& backend) {
    c10d::AllreduceOptions options;
    options.reduceOp = to_c10d(op);
    std::vector<at::Tensor> tensors{tensor};
    return backend.allreduce(tensors, options);
  });
}

#include "parallel/group_connection.h"

#include <algorithm>

#include "base/error.h"
#include "base/format.h"
#include "base/hash.h"
#include "base/log.h"

namespace triptych {

namespace {

std::string joined(at::IntArrayRef values, const char* separator) {
  std::string text;
  for (size_t i = 0; i < values.size(); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : separator, values[i]);
  }
  return text;
}

/// Short for long lists of members, equal on every rank.
std::string store_name(const std::vector<int64_t>& members) {
  const auto text = members_text(members);
  return members.size() <= 8 ? text : hex64(xxh3_64(text));
}

}  // namespace

std::string members_text(const std::vector<int64_t>& members) {
  return fmt::format("{{{}}}", joined(members, ","));
}

std::string describe(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format(" [{}] {}", joined(tensor.sizes(), ", "),
                                        c10::toString(tensor.scalar_type()))
                          : std::string();
}

void Pending::wait() {
  if (!work_) return;
  const auto work = std::move(work_);
  work_ = nullptr;
  if (work->record == 0) work->record = work->host->log.begin(work->text);
  if (work->trace) work->trace->wait_begins();
  try {
    work->work->wait();
  } catch (const std::exception& error) {
    work->host->fail(work->text, message_of(error));
  }
  if (work->trace) work->trace->wait_ended();
  work->host->log.end(work->record);
}

bool Pending::done() const { return !work_ || work_->work->isCompleted(); }

void Pending::abort() {
  if (work_) work_->work->abort();
}

/// NCCL's communicators are to be closed before the process ends, or it warns and may hang.
Group::Connection::~Connection() {
  try {
    if (backend) backend->shutdown();
  } catch (const std::exception& error) {
    log_warning("closing a group: {}", message_of(error));
  }
}

void compare_records(const GroupHost& host, const std::vector<int64_t>& members, int64_t sequence,
                     const std::string& what) {
  const auto key = [&](int64_t rank) {
    return fmt::format("check/{}/{}/{}", store_name(members), sequence, rank);
  };
  host.store->set(key(host.rank), what);
  for (const auto rank : members) {
    try {
      host.store->wait({key(rank)}, host.timeout);
    } catch (const std::exception& error) {
      host.fail(what, fmt::format("rank {} did not announce it: {}", rank, message_of(error)));
    }
    const auto other = host.store->get_to_str(key(rank));
    require<PeerError>(other == what, "rank ", host.rank, " calls ", what, ", rank ", rank,
                       " calls ", other, "; all ranks of a group must call the same collectives");
  }
}

Group::Connection& Group::connection() {
  if (connection_) return *connection_;
  auto fresh = std::make_unique<Connection>();
  const auto text = fmt::format("connecting {} {}", name_, members_text(members_));
  const auto record = host_->log.begin(text);
  try {
    fresh->backend =
        make_backend(*host_, host_->device, store_name(members_) + "/" + name_, rank_, size());
  } catch (const std::exception& error) {
    host_->fail(text, message_of(error));
  }
  host_->log.end(record);
  connection_ = std::move(fresh);
  return *connection_;
}

std::unique_ptr<CommTrace> start_trace(const GroupHost& host, const char* operation,
                                       const std::string& group,
                                       const std::vector<int64_t>& members, std::string_view tag,
                                       std::span<const at::Tensor> tensors, int64_t sequence,
                                       CommTrace::LastEnd last_end) {
  auto* sink = trace_sink();
  if (sink == nullptr || host.device != c10::DeviceType::CPU || tensors.empty()) return nullptr;
  const auto& out = tensors.front();
  const auto& in = tensors.back();
  CommRecord record{.type = trace_type(operation),
                    .group = group,
                    .tag = group_tag(group),
                    .label = std::string(tag),
                    .dtype = c10::toString(in.scalar_type()),
                    .members = members,
                    .in_elements = in.numel(),
                    .out_elements = out.numel(),
                    .bytes = static_cast<int64_t>(std::max(in.nbytes(), out.nbytes())),
                    .sequence = sequence};
  return std::make_unique<CommTrace>(*sink, std::move(record), std::move(last_end));
}

}  // namespace triptych

#include "parallel/comm_trace.h"

#include <ATen/core/ivalue.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

namespace triptych {

namespace {

uint64_t thread_number() { return static_cast<uint64_t>(::syscall(SYS_gettid)); }

/// Below this a message was already there when it was asked for.
constexpr int64_t kArrivedBefore = 20'000;
/// A call that is waited for so soon by the same thread held that thread from its entry on.
constexpr int64_t kAtOnce = 50'000;

void raise_to(std::atomic<int64_t>& value, int64_t least) {
  int64_t now = value.load();
  while (now < least && !value.compare_exchange_weak(now, least)) {
  }
}

}  // namespace

std::string group_tag(const std::string& group_name) {
  static constexpr std::array<std::pair<std::string_view, const char*>, 4> kTags = {
      {{"tensor", "tp"}, {"context", "cp"}, {"data", "dp"}, {"pipeline", "pp"}}};
  if (group_name.find(" x ") != std::string::npos) return group_name;
  for (const auto& [axis, tag] : kTags) {
    if (group_name.starts_with(axis)) return tag;
  }
  return group_name == "ulysses" || group_name == "ring" ? "cp" : group_name;
}

std::string trace_type(std::string_view operation) {
  if (operation == "send to") return "send";
  if (operation == "receive from") return "recv";
  if (operation == "all_gather") return "_allgather_base";
  if (operation == "reduce_scatter") return "_reduce_scatter_base";
  if (operation == "all_to_all") return "all_to_allv";
  if (operation == "all_reduce") return "allreduce";
  return std::string(operation);
}

CommTrace::CommTrace(TraceSink& sink, CommRecord record, LastEnd last_end)
    : sink_(sink),
      record_(std::move(record)),
      last_end_(std::move(last_end)),
      thread_(thread_number()) {
  record_.begin_ns = trace_time_ns();
}

void CommTrace::watch(c10d::Work& work) {
  try {
    const auto future = work.getFuture();
    if (!future) return;
    future->addCallback(
        [completed = completed_](c10::ivalue::Future&) { completed->store(trace_time_ns()); });
  } catch (const std::exception&) {
    // this kind of work has no future; the end of the wait is the end then
  }
}

void CommTrace::wait_ended() {
  const int64_t now = trace_time_ns();
  record_.wait_begin_ns = wait_begin_ns_;
  record_.wait_ns = now - wait_begin_ns_;
  const int64_t completed = completed_->load();
  record_.end_ns = completed > 0 ? std::min(completed, now) : now;
  record_.beside = thread_number() != thread_ || wait_begin_ns_ - record_.begin_ns > kAtOnce;
  if (record_.type == "recv") {
    // It had come before anybody asked, nobody knows when: the sender's record tells.
    if (record_.wait_ns < kArrivedBefore) record_.begin_ns = wait_begin_ns_;
  } else if (last_end_) {
    const int64_t before = last_end_->load();
    if (record_.beside && before < record_.end_ns)
      record_.begin_ns = std::max(record_.begin_ns, before);
    raise_to(*last_end_, record_.end_ns);
  }
  sink_.record(std::move(record_));
}

}  // namespace triptych

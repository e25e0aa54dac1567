#include "profile/recorder.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <utility>

namespace triptych {

namespace {

int64_t system_thread() {
  static thread_local const int64_t number = ::syscall(SYS_gettid);
  return number;
}

struct OpenScope {
  explicit OpenScope(std::string text)
      : name(std::move(text)), kineto(at::RecordScope::USER_SCOPE) {
    if (kineto.isActive()) kineto.before(name);
  }
  std::string name;
  at::RecordFunction kineto;
  int64_t begin_ns = trace_time_ns();
  int64_t first_node = static_cast<int64_t>(at::sequence_number::peek());
};

}  // namespace

Recorder& Recorder::instance() {
  static auto* recorder = new Recorder;
  return *recorder;
}

void Recorder::begin(int64_t level, bool inner) {
  {
    const std::lock_guard lock(mutex_);
    records_ = {};
    open_ = true;
    level_ = level;
    inner_modules = inner;
  }
  set_trace_sink(this);
}

Records Recorder::end() {
  set_trace_sink(nullptr);
  const std::lock_guard lock(mutex_);
  open_ = false;
  return std::exchange(records_, {});
}

void* Recorder::open_scope(std::string name) {
  if (level_.load(std::memory_order_relaxed) == 0 && !name.starts_with("ProfilerStep#"))
    return nullptr;
  return new OpenScope(std::move(name));
}

void Recorder::close_scope(void* scope) {
  const std::unique_ptr<OpenScope> open(static_cast<OpenScope*>(scope));
  if (!open) return;
  const int64_t now = trace_time_ns();
  const bool in_kineto = open->kineto.isActive();
  open->kineto.end();
  const bool is_module = open->name.starts_with(kModulePrefix);
  const std::lock_guard lock(mutex_);
  if (!open_) return;
  if (is_module) {
    const auto behind = static_cast<int64_t>(at::sequence_number::peek());
    if (behind > open->first_node)
      records_.modules.push_back(
          {open->name, at::RecordFunction::currentThreadId(), open->first_node, behind});
  }
  if (!in_kineto)
    records_.scopes.push_back({std::move(open->name), open->begin_ns, now, system_thread()});
}

void Recorder::record(CommRecord call) {
  const std::lock_guard lock(mutex_);
  if (open_ && level_ > 0) records_.calls.push_back({std::move(call), system_thread()});
}

}  // namespace triptych

#include "profile/kineto_session.h"

#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/csrc/profiler/orchestration/observer.h>

#include <algorithm>
#include <set>
#include <unordered_set>
#include <utility>

#include "base/error.h"

namespace triptych {

namespace {

namespace kineto = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;
using torch::profiler::impl::ProfilerStateBase;

std::set<ActivityType> activities(const CollectionSettings& settings, c10::DeviceType device) {
  std::set<ActivityType> kinds;
  // Without a device nothing else is there to be recorded.
  if (settings.with_cpu || device == c10::DeviceType::CPU) kinds.insert(ActivityType::CPU);
  if (device == c10::DeviceType::CUDA) kinds.insert(ActivityType::CUDA);
  if (device == c10::DeviceType::PrivateUse1) kinds.insert(ActivityType::PrivateUse1);
  return kinds;
}

ProfilerConfig config(const CollectionSettings& settings) {
  torch::profiler::impl::ExperimentalConfig more;
  more.enable_cuda_sync_events = settings.level >= 2;
  return ProfilerConfig(ProfilerState::KINETO, settings.record_shapes, settings.with_memory,
                        /*with_stack=*/false, /*with_flops=*/settings.level >= 2,
                        /*with_modules=*/false, std::move(more));
}

/// The engine's own range around each node of backward, with the node's number.
std::vector<NodeRun> nodes_of(const kineto::ProfilerResult& result) {
  struct Event {
    int64_t thread;
    uint64_t begin, end;
    bool engine;
    int64_t number;
    uint64_t forward_thread;
  };
  std::vector<Event> events;
  for (const auto& e : result.events()) {
    const bool node = e.scope() == static_cast<uint8_t>(at::RecordScope::BACKWARD_FUNCTION);
    const bool engine = !node && e.name().starts_with("autograd::engine::evaluate_function");
    if (!node && !engine) continue;
    events.push_back(
        {e.deviceResourceId(), e.startNs(), e.endNs(), engine, e.sequenceNr(), e.fwdThreadId()});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    if (a.thread != b.thread) return a.thread < b.thread;
    return a.begin != b.begin ? a.begin < b.begin : a.engine > b.engine;
  });
  std::vector<NodeRun> nodes;
  for (size_t i = 1; i < events.size(); ++i) {
    const auto& before = events[i - 1];
    const auto& e = events[i];
    if (e.engine || !before.engine || before.thread != e.thread) continue;
    nodes.push_back({.number = e.number,
                     .forward_thread = e.forward_thread,
                     .thread = e.thread,
                     .begin_ns = static_cast<int64_t>(before.begin),
                     .end_ns = static_cast<int64_t>(before.end)});
  }
  return nodes;
}

std::vector<NodeRun> write_result(kineto::ProfilerResult& result,
                                  const std::filesystem::path& file) {
  auto nodes = nodes_of(result);
  result.save(file.string());
  return nodes;
}

/// Kineto's state was taken off the thread of the steps: working it out takes as long as a step,
/// and nothing of it needs that thread.
class PutOff final : public KinetoSession::Collected {
 public:
  explicit PutOff(std::shared_ptr<c10::DebugInfoBase> state) : state_(std::move(state)) {}
  std::vector<NodeRun> write(const std::filesystem::path& file) override {
    c10::ThreadLocalDebugInfo::_push(c10::DebugInfoKind::PROFILER_STATE, std::move(state_));
    const auto result = kineto::disableProfiler();
    return write_result(*result, file);
  }

 private:
  std::shared_ptr<c10::DebugInfoBase> state_;
};

/// Worked out at once: a device's tracing library wants to be stopped where it was started.
class Finished final : public KinetoSession::Collected {
 public:
  explicit Finished(std::unique_ptr<kineto::ProfilerResult> result) : result_(std::move(result)) {}
  std::vector<NodeRun> write(const std::filesystem::path& file) override {
    return write_result(*result_, file);
  }

 private:
  std::unique_ptr<kineto::ProfilerResult> result_;
};

}  // namespace

void KinetoSession::prepare(const CollectionSettings& settings, c10::DeviceType device) {
  kineto::prepareProfiler(config(settings), activities(settings, device));
}

void KinetoSession::start(const CollectionSettings& settings, c10::DeviceType device) {
  const std::unordered_set<at::RecordScope> scopes = {
      at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE};
  kineto::enableProfiler(config(settings), activities(settings, device), scopes);
}

std::unique_ptr<KinetoSession::Collected> KinetoSession::stop(c10::DeviceType device) {
  if (device != c10::DeviceType::CPU) return std::make_unique<Finished>(kineto::disableProfiler());
  auto state = c10::ThreadLocalDebugInfo::_pop(c10::DebugInfoKind::PROFILER_STATE);
  // The thread's callbacks must go on this thread.
  static_cast<ProfilerStateBase*>(state.get())->removeCallback();
  return std::make_unique<PutOff>(std::move(state));
}

}  // namespace triptych

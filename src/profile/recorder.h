#pragma once

// Our own records of a window: scopes, communication, and which nodes of autograd's graph each
// module made.

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/trace_scope.h"

namespace triptych {

/// A finished range that Kineto does not record itself.
struct OwnScope {
  std::string name;
  int64_t begin_ns = 0, end_ns = 0;
  int64_t thread = 0;  ///< of the system
};

struct RecordedCall {
  CommRecord call;
  int64_t thread = 0;
};

/// Forward of one module: autograd's nodes that it made carry numbers from first to last - 1.
struct ModuleRun {
  std::string name;
  uint64_t thread = 0;  ///< as RecordFunction numbers threads
  int64_t first = 0, last = 0;
};

/// One node of backward as the engine ran it.
struct NodeRun {
  int64_t number = 0;  ///< negative: none
  uint64_t forward_thread = 0;
  int64_t thread = 0;  ///< of the system
  int64_t begin_ns = 0, end_ns = 0;
};

/// What a window has recorded.
struct Records {
  std::vector<OwnScope> scopes;
  std::vector<RecordedCall> calls;
  std::vector<ModuleRun> modules;
};

/// The sink of this process. Scopes of threads that Kineto watches are its own user annotations
/// (so that they get their external ids and, on a GPU, their lane there); those of other threads
/// are kept here. One exists for the whole process and is never destroyed.
class Recorder final : public TraceSink {
 public:
  static Recorder& instance();

  /// When Kineto has begun. @param level  of the window; at 0 it hears only of steps
  /// @param inner  also modules inside of layers
  void begin(int64_t level, bool inner);
  /// @return what came since.
  Records end();

  void* open_scope(std::string name) override;
  void close_scope(void* scope) override;
  void record(CommRecord call) override;

 private:
  Recorder() = default;
  ~Recorder() = default;

  std::mutex mutex_;  // guards what follows
  Records records_;
  bool open_ = false;
  std::atomic<int64_t> level_{1};
};

/// Backward of modules: the runs of nodes of one module on one thread joined to ranges, outer ones
/// first. Names are those of the modules.
std::vector<OwnScope> backward_modules(const std::vector<ModuleRun>& modules,
                                       std::vector<NodeRun> nodes);

}  // namespace triptych

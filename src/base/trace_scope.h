#pragma once

// What a process tells the trace about itself while a window of the profiler is open. Outside of
// one, a scope and a record cost a load and a branch.

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// One call of a collective, or one end of a message. Times are Unix ns.
struct CommRecord {
  std::string type;              ///< "all_reduce", "all_gather", ..., "send", "recv"
  std::string group;             ///< name of the group, the same on all members
  std::string tag;               ///< tp, cp, dp, pp, or the name where no axis fits
  std::string label;             ///< what it carries, e.g. "bucket 3"
  std::string dtype;             ///< as c10 prints it: "Float", "BFloat16"
  std::vector<int64_t> members;  ///< global ranks
  int64_t in_elements = 0, out_elements = 0;
  int64_t bytes = 0;           ///< the payload: what is larger of in and out
  int64_t src = -1, dst = -1;  ///< global ranks; messages only
  int64_t sequence = 0;        ///< both ends of a call give the same
  int64_t begin_ns = 0;        ///< entry; behind the group's earlier calls where they run in turn
  int64_t end_ns = 0;          ///< completion
  int64_t wait_begin_ns = 0;   ///< when the waiting thread asked for its end
  int64_t wait_ns = 0;         ///< that this thread was held up
  bool beside = false;         ///< other work of the thread went on meanwhile
};

/// Where scopes and records go while a window is open. Functions may be called from any thread.
class TraceSink {
 public:
  /// Whether modules inside of layers are wanted.
  std::atomic<bool> inner_modules{false};

  virtual void* open_scope(std::string name) = 0;
  /// On the thread that opened it; also after the window has closed.
  virtual void close_scope(void* scope) = 0;
  virtual void record(CommRecord record) = 0;

 protected:
  ~TraceSink() = default;  // lives until the process ends: scopes may close late
};

namespace detail {
inline std::atomic<TraceSink*> trace_sink{nullptr};
}

/// Null outside of a window.
inline TraceSink* trace_sink() { return detail::trace_sink.load(std::memory_order_acquire); }
inline void set_trace_sink(TraceSink* sink) {
  detail::trace_sink.store(sink, std::memory_order_release);
}

/// Unix ns, the time base of a trace.
int64_t trace_time_ns();

/// A named range of the calling thread. Names with a meaning: docs/profile_summary.md.
class TraceScope {
 public:
  /// The name is the two parts joined.
  explicit TraceScope(std::string_view name, std::string_view rest = {}) {
    if (auto* sink = trace_sink()) open(*sink, name, rest);
  }
  /// Of a module inside of a layer.
  struct Inner {};
  TraceScope(Inner /*tag*/, std::string_view name, std::string_view rest) {
    auto* sink = trace_sink();
    if (sink != nullptr && sink->inner_modules.load(std::memory_order_relaxed))
      open(*sink, name, rest);
  }
  ~TraceScope() {
    if (sink_ != nullptr) sink_->close_scope(scope_);
  }
  TraceScope(const TraceScope&) = delete;
  TraceScope& operator=(const TraceScope&) = delete;

 private:
  void open(TraceSink& sink, std::string_view name, std::string_view rest);

  TraceSink* sink_ = nullptr;
  void* scope_ = nullptr;
};

/// The scope of a module, by its path on the hub.
inline constexpr std::string_view kModulePrefix = "nn.Module: ";

}  // namespace triptych

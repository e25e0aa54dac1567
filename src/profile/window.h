#pragma once

// A window: the steps that one collection covers, and those who want to know of it.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace triptych {

/// What is collected and how; `[profile]` of a run file, or one request of dynamic collection.
struct CollectionSettings {
  std::vector<int64_t> ranks = {0};  ///< global; {-1}: all
  int64_t level = 1;
  bool with_cpu = true, with_stack = false, with_memory = false, record_shapes = false,
       analyse = true;
  std::filesystem::path save_path;  ///< folder of the traces
  std::string metadata;             ///< a JSON object added to the trace; empty: none

  bool includes(int64_t rank) const;
};

/// Steps [begin, end), numbered as in metrics.jsonl.
struct Window {
  int64_t begin = 0, end = 0;
  CollectionSettings settings;
};

/// Hears of windows on the main thread of every rank that records one.
class WindowObserver {
 public:
  virtual ~WindowObserver() = default;
  /// Before the first step of the window.
  virtual void window_opens(const Window& /*window*/) {}
  /// After its last step, before the trace is written. `stem` is the path of the trace file without
  /// ".pt.trace.json.gz", for what lies beside it.
  virtual void window_closes(const Window& /*window*/, const std::filesystem::path& /*stem*/) {}
};

using WindowObservers = std::vector<std::shared_ptr<WindowObserver>>;

}  // namespace triptych

#pragma once

// Recordings of tensor memory as a run goes on: `[profile.memory]` of a run file.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "parallel/process_context.h"
#include "profile/memory_snapshot.h"
#include "train/run_options.h"
#include "train/step_observer.h"

namespace triptych {

/// Records every allocation between the begin of one step and that of another and writes a
/// snapshot; step 0 is the building of the model. Where an allocation fails, what is held at that
/// moment is written too, whether or not a window is open. A snapshot that cannot be written is a
/// warning; training goes on.
class MemoryWindows final : public StepObserver {
 public:
  /// @param output  the run's folder; `save_path` is relative to it.
  MemoryWindows(const ProcessContext& process, const ProfileMemoryOptions& options,
                const std::filesystem::path& output);
  ~MemoryWindows() override;

  void run_opens() override { step_begins(0); }
  void step_begins(int64_t step) override;
  void step_ends(int64_t step) override { step_ = step + 1; }
  void run_ends(const std::exception* error) noexcept override;

 private:
  void write(const MemoryRecording& recording, const std::string& failure);
  void allocation_failed(const std::string& message) noexcept;

  std::filesystem::path folder_;
  SnapshotFacts facts_;
  int64_t max_events_;
  std::vector<std::pair<int64_t, int64_t>> windows_;  ///< by begin
  int64_t step_ = 0;
  std::optional<int64_t> end_;  ///< of the open window
  bool failed_ = false;
};

}  // namespace triptych

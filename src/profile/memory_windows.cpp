#include "profile/memory_windows.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "kernels/memory_report.h"

namespace triptych {

MemoryWindows::MemoryWindows(const ProcessContext& process, const ProfileMemoryOptions& options,
                             const std::filesystem::path& output)
    : folder_(output / options.save_path),
      facts_{.rank = process.rank(), .world_size = process.world_size()},
      max_events_(options.max_entries) {
  const auto& ranks = options.ranks;
  const bool all = ranks == std::vector<int64_t>{-1};
  if (all || std::ranges::find(ranks, process.rank()) != ranks.end()) {
    for (const auto& window : options.windows) windows_.emplace_back(window[0], window[1]);
    std::ranges::sort(windows_);
  }
  on_out_of_memory([this](const std::string& message) { allocation_failed(message); });
}

MemoryWindows::~MemoryWindows() {
  on_out_of_memory({});
  if (end_ && memory_recording()) stop_memory_recording();
}

void MemoryWindows::step_begins(int64_t step) {
  step_ = step;
  if (end_ && step >= *end_) {
    end_.reset();
    facts_.end_step = step;
    write(stop_memory_recording(), "");
  }
  if (end_) return;
  const auto open = std::ranges::find_if(
      windows_, [&](const auto& window) { return window.first <= step && step < window.second; });
  if (open == windows_.end()) return;
  if (memory_recording()) {
    if (step == open->first)
      log_warning(
          "profile.memory: steps {} to {} wait for the end of the window of [profile] "
          "that records allocations (with_memory)",
          open->first, open->second - 1);
    return;
  }
  start_memory_recording(max_events_);
  facts_.first_step = step;
  end_ = open->second;
}

void MemoryWindows::run_ends(const std::exception* error) noexcept {
  if (!end_ || failed_) return;
  end_.reset();
  facts_.end_step = step_;
  write(stop_memory_recording(), error != nullptr ? error->what() : "");
}

void MemoryWindows::allocation_failed(const std::string& message) noexcept {
  if (std::exchange(failed_, true)) return;
  facts_.end_step = step_ + 1;
  if (!end_) facts_.first_step = step_;
  write(end_ && memory_recording() ? stop_memory_recording() : memory_blocks(), message);
}

void MemoryWindows::write(const MemoryRecording& recording, const std::string& failure) {
  auto facts = facts_;
  facts.failure = failure;
  try {
    const auto file = new_snapshot_path(folder_, facts.rank);
    write_memory_snapshot(file, recording, facts);
    log_info("memory snapshot: {}", file.string());
  } catch (const std::exception& error) {
    log_warning("memory snapshot: {}", error.what());
  }
}

}  // namespace triptych

#include "profile/profile_status.h"

#include <unistd.h>

#include <exception>
#include <utility>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"

namespace triptych {

ProfileStatus::ProfileStatus(std::filesystem::path file)
    : file_(std::move(file)), status_{{"state", "IDLE"}, {"pid", ::getpid()}} {}

void ProfileStatus::set(const Json& members) {
  const std::lock_guard lock(mutex_);
  bool changed = written_s_ == 0;
  for (const auto& [key, value] : members.items()) {
    changed =
        changed || (key != "current_step" && (!status_.contains(key) || status_[key] != value));
    status_[key] = value;
  }
  const double now = steady_seconds();
  if (!changed && now - written_s_ < 1) return;
  written_s_ = now;
  try {
    write_file_atomically(file_, dump_json(status_, 2) + "\n");
  } catch (const std::exception& error) {
    log_debug("profile: {}", error.what());
  }
}

}  // namespace triptych

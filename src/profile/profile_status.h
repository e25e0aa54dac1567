#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>

#include "base/json.h"

namespace triptych {

/// status.json beside the watched file. Functions may be called from any thread; a status that
/// cannot be written is passed over.
class ProfileStatus {
 public:
  explicit ProfileStatus(std::filesystem::path file);

  /// Changes these members and writes them down: at once where `state`, `request` or a trace
  /// change, else once a second.
  void set(const Json& members);

 private:
  std::filesystem::path file_;
  std::mutex mutex_;  // guards what follows
  Json status_;
  double written_s_ = 0;
};

}  // namespace triptych

#pragma once

// One collection by Kineto.

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "profile/recorder.h"
#include "profile/window.h"

namespace triptych {

/// From `start` to `stop`, both on the thread of the steps; one at a time in a process. What Kineto
/// makes of its records is then worked out by `Collected`, on any thread.
class KinetoSession {
 public:
  /// Loads what collecting needs, ahead of `start`, so that the first step recorded is no slower.
  static void prepare(const CollectionSettings& settings, c10::DeviceType device);

  /// What has been collected and not yet been worked out.
  class Collected;

  static void start(const CollectionSettings& settings, c10::DeviceType device);
  static std::unique_ptr<Collected> stop(c10::DeviceType device);
};

class KinetoSession::Collected {
 public:
  virtual ~Collected() = default;
  /// Writes Kineto's own JSON. To be called once, on one thread, before the next `prepare`.
  /// @return nodes of backward. @throws Error when the file cannot be written.
  virtual std::vector<NodeRun> write(const std::filesystem::path& file) = 0;
};

}  // namespace triptych

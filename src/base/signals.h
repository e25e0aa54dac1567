#pragma once

namespace triptych {

/// What signals have asked for so far.
enum class StopRequest {
  kNone,
  kSaveAndStop,  ///< SIGINT, SIGTERM or SIGUSR1 once: finish the step, save, end with status 75
  kStopNow,      ///< SIGINT or SIGTERM again: end after the current collective without saving
};

/// Takes over SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 for as long as it lives. The handlers only set
/// atomic flags; a third SIGINT or SIGTERM kills the process. One object at a time; the flags may
/// be read from any thread.
class SignalFlags {
 public:
  SignalFlags();
  ~SignalFlags();
  SignalFlags(const SignalFlags&) = delete;
  SignalFlags& operator=(const SignalFlags&) = delete;

  StopRequest stop() const;

  /// The signal that asked first, as "SIGTERM"; "" when none did.
  const char* stop_signal() const;

  /// SIGUSR2 since the last call: save and go on.
  bool take_save_request();
};

}  // namespace triptych

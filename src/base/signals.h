#pragma once

namespace triptych {

/// What signals have asked for so far.
enum class StopRequest {
  kNone,
  kSaveAndStop,  ///< SIGINT, SIGTERM, SIGUSR1 or SIGHUP: finish the step, save, end with status 75
  kStopNow,      ///< SIGINT or SIGTERM again: end after the current collective without saving
};

/// What a handler writes to standard error at once; string constants, or null for nothing.
struct SignalWords {
  const char* nothing_to_save = nullptr;  ///< before SignalFlags::work_begins: ends the process
  const char* stopping = nullptr;         ///< after it: the step goes on until it is saved
};

/// Takes over SIGINT, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP (unless that was ignored, as under
/// nohup) for as long as it lives. The handlers only set atomic flags; a third SIGINT or SIGTERM
/// kills the process. One object at a time; the flags may be read from any thread.
class SignalFlags {
 public:
  enum class Until {
    kRead,       ///< a request to stop waits until someone asks for it
    kWorkBegins  ///< until work_begins() it ends the process at once, with `status`
  };
  explicit SignalFlags(Until until = Until::kRead, int status = 0, const SignalWords& words = {});
  ~SignalFlags();
  SignalFlags(const SignalFlags&) = delete;
  SignalFlags& operator=(const SignalFlags&) = delete;

  /// From now on there is something to save.
  void work_begins();

  StopRequest stop() const;

  /// The signal that asked first, as "SIGTERM"; "" when none did.
  const char* stop_signal() const;

  /// SIGUSR2 since the last call: save and go on.
  bool take_save_request();
};

}  // namespace triptych

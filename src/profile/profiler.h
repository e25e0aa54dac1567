#pragma once

// Collection of traces as a run goes on: `[profile]` of a run file.

#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/trace_scope.h"
#include "parallel/process_context.h"
#include "profile/background_writer.h"
#include "profile/config_watch.h"
#include "profile/profile_status.h"
#include "profile/watch_log.h"
#include "profile/window.h"
#include "train/run_options.h"
#include "train/step_observer.h"

namespace triptych {

/// Opens and closes windows between steps and has their traces written in the background. On every
/// rank, also on those that record nothing: all agree on where a window begins. A trace that
/// cannot be written is a warning; training goes on.
///
/// Outside of a window a step costs two virtual calls, and the scopes in the code a load and a
/// branch each.
class Profiler final : public StepObserver {
 public:
  struct Settings {
    ProfileOptions profile;  ///< of the run file or of a tools.json
    /// Steps of `profile.windows` count from 0 at the first one of this process (tools.json).
    bool relative_steps = false;
    std::string version;
  };

  /// Process and options must outlive it.
  Profiler(ProcessContext& process, const RunOptions& options, Settings settings,
           WindowObservers observers = {});
  ~Profiler() override;

  void run_opens() override;
  void model_is_there(const RunFacts& facts) override;
  void step_begins(int64_t step) override;
  void step_worked(const StepWork& work) override;
  void step_ends(int64_t step) override;
  int64_t vote() override;
  void heard(int64_t vote) override;
  void run_ends(const std::exception* error) noexcept override;

 private:
  void open(int64_t step);
  void start_recording();
  void close(int64_t behind, bool cut_short);
  void prepare_for(int64_t step);
  void take_request(const std::string& text);
  void tell(const char* state, const Json& more = Json::object());
  void note(const std::string& words);
  CollectionSettings own_settings() const;

  ProcessContext& process_;
  const RunOptions& options_;
  Settings settings_;
  WindowObservers observers_;
  Json header_;
  std::deque<Window> windows_;  ///< to come, by begin
  std::optional<Window> open_;
  bool prepared_ = false;
  bool memory_ = false;  ///< the open window has the books record
  int64_t step_ = 0;     ///< that ended last
  int64_t known_vote_ = 0;
  int64_t steps_seen_ = 0;
  double step_began_s_ = 0, unprofiled_s_ = 0;
  double window_flop_ = 0, peak_flop_per_second_ = 0;
  int64_t window_steps_ = 0;
  int64_t core_waited_ns_ = -1;          ///< at the begin of the step
  Json core_waits_ns_ = Json::object();  ///< of the window, by step
  std::optional<TraceScope> step_scope_;
  std::unique_ptr<ConfigWatch> watch_;
  std::unique_ptr<ProfileStatus> status_;  ///< rank 0 of a run with dynamic collection
  std::unique_ptr<WatchLog> watch_log_;    ///< each rank of such a run
  BackgroundWriter writer_;                // last: its jobs use what is above
};

/// The observer of `[profile]`; null where nothing is asked for.
std::shared_ptr<Profiler> make_profiler(ProcessContext& process, const RunOptions& options,
                                        Profiler::Settings settings,
                                        WindowObservers observers = {});

}  // namespace triptych

#include "profile/profiler.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/clock.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"
#include "insight/run.h"
#include "kernels/memory_ledger.h"
#include "profile/core_wait.h"
#include "profile/kineto_session.h"
#include "profile/recorder.h"
#include "profile/trace_header.h"
#include "profile/trace_writer.h"
#include "train/run_setup.h"

namespace triptych {

bool CollectionSettings::includes(int64_t rank) const {
  if (ranks == std::vector<int64_t>{-1}) return true;
  return std::find(ranks.begin(), ranks.end(), rank) != ranks.end();
}

namespace {

/// The viewer's index, so that the first look at the trace takes no time.
void write_index(const std::filesystem::path& trace) {
  auto run = insight::Run::find({trace});
  run.load(1);
  for (const auto& file : run.files())
    if (!file.error.empty()) log_warning("profile: {}: {}", trace.string(), file.error);
}

void warn_about_ranks(const std::vector<int64_t>& ranks) {
  if (ranks.size() > 1 && std::find(ranks.begin(), ranks.end(), -1) != ranks.end())
    log_warning("profile.ranks: -1 among others does not mean all ranks; write [-1]");
}

}  // namespace

Profiler::Profiler(ProcessContext& process, const RunOptions& options, Settings settings,
                   WindowObservers observers)
    : process_(process),
      options_(options),
      settings_(std::move(settings)),
      observers_(std::move(observers)) {
  ::setenv("KINETO_LOG_LEVEL", "6", 0);  // its marks of begin and end go to standard error else
}

Profiler::~Profiler() = default;

CollectionSettings Profiler::own_settings() const {
  const auto& p = settings_.profile;
  return {.ranks = p.ranks,
          .level = p.level,
          .with_cpu = p.with_cpu,
          .with_stack = p.with_stack,
          .with_memory = p.with_memory,
          .record_shapes = p.record_shapes,
          .analyse = p.analyse,
          .save_path = options_.output / p.save_path,
          .metadata = {}};
}

void Profiler::run_opens() {
  if (process_.rank() == 0) warn_about_ranks(settings_.profile.ranks);
  if (settings_.profile.mode != ProfileMode::kDynamic) return;
  const auto folder = dynamic_folder(options_.output, settings_.profile);
  const auto log_of = [&](int64_t rank) {
    return std::make_unique<WatchLog>(
        watch_log_path(folder, process_.host_name(), ::getpid(), rank));
  };
  watch_log_ = log_of(process_.rank());
  if (process_.rank() != 0) return;
  constexpr double kPollS = 0.5;
  watch_ = std::make_unique<ConfigWatch>(folder, settings_.profile, kPollS, log_of(-1));
  status_ = std::make_unique<ProfileStatus>(folder / kDynamicStatusName);
}

void Profiler::model_is_there(const RunFacts& facts) {
  header_ = run_header(process_, options_, facts, settings_.version);
  step_ = facts.first_step - 1;
  tell("IDLE");
  if (settings_.profile.mode != ProfileMode::kStatic) return;
  const int64_t shift = settings_.relative_steps ? facts.first_step : 0;
  for (const auto& window : settings_.profile.windows)
    windows_.push_back({window[0] + shift, window[1] + shift, own_settings()});
  std::sort(windows_.begin(), windows_.end(),
            [](const Window& a, const Window& b) { return a.begin < b.begin; });
  for (const auto& window : windows_) {
    if (process_.rank() == 0 && window.begin > facts.last_step)
      log_warning("profile.windows: step {} is never reached, the run ends after step {}",
                  window.begin, facts.last_step);
    if (process_.rank() == 0 && window.begin == facts.first_step && facts.first_step == 1)
      log_info(
          "profile.windows: step 1 also makes what is made once; a later step is more typical");
  }
  prepare_for(facts.first_step);
}

/// Does what can be done ahead of the window that may begin with `step`.
void Profiler::prepare_for(int64_t step) {
  if (prepared_ || open_ || windows_.empty() || windows_.front().begin != step ||
      !windows_.front().settings.includes(process_.rank()))
    return;
  writer_.wait();  // Kineto works on one collection at a time
  KinetoSession::prepare(windows_.front().settings, device_type(options_.device));
  prepared_ = true;
}

void Profiler::step_begins(int64_t step) {
  while (!open_ && !windows_.empty() && windows_.front().end <= step) windows_.pop_front();
  if (!open_ && !windows_.empty() && windows_.front().begin <= step) open(step);
  core_waited_ns_ = open_ ? core_wait_ns() : -1;
  step_began_s_ = steady_seconds();
  step_scope_.emplace("ProfilerStep#", trace_sink() ? std::to_string(step) : std::string());
}

/// Into the log file of this rank's dynamic collection.
void Profiler::note(const std::string& words) {
  if (watch_log_) watch_log_->write(words);
}

void Profiler::open(int64_t step) {
  open_ = std::move(windows_.front());
  windows_.pop_front();
  open_->begin = step;
  window_flop_ = 0;
  window_steps_ = 0;
  core_waits_ns_ = Json::object();
  tell("RUNNING");
  if (!open_->settings.includes(process_.rank())) return;
  try {
    if (!prepared_) {
      writer_.wait();
      KinetoSession::prepare(open_->settings, device_type(options_.device));
    }
    for (const auto& observer : observers_) observer->window_opens(*open_);
    start_recording();
    note(fmt::format("recording steps {} to {}", open_->begin, open_->end - 1));
  } catch (const std::exception& error) {
    note(error.what());
    log_warning("profile: steps {} to {} are not recorded: {}", open_->begin, open_->end - 1,
                error.what());
    open_->settings.ranks.clear();
  }
  prepared_ = false;
}

void Profiler::start_recording() {
  auto settings = open_->settings;
  // Our books know what a block is for; Kineto knows sizes alone, and both would count twice.
  const bool has_books = options_.device != DeviceKind::kNpu;
  memory_ = settings.with_memory && has_books && !memory_recording();
  if (settings.with_memory && !memory_)
    log_warning("profile: allocations of steps {} to {} are recorded without what they are for{}",
                open_->begin, open_->end - 1,
                memory_recording() ? ": a window of [profile.memory] is open" : "");
  settings.with_memory = settings.with_memory && !memory_;
  KinetoSession::start(settings, device_type(options_.device));
  try {
    if (settings.with_stack) start_native_stacks();
    if (memory_) start_memory_recording(0, settings.with_stack ? stack_of_allocation : nullptr);
    Recorder::instance().begin(settings.level, settings.with_stack);
  } catch (...) {
    if (std::exchange(memory_, false) && memory_recording()) stop_memory_recording();
    if (settings.with_stack) stop_native_stacks();
    KinetoSession::stop(device_type(options_.device));
    throw;
  }
}

void Profiler::step_worked(const StepWork& work) {
  if (!open_) return;
  window_flop_ += work.flop;
  ++window_steps_;
  peak_flop_per_second_ = work.peak_flop_per_second;
}

void Profiler::step_ends(int64_t step) {
  step_scope_.reset();
  step_ = step;
  if (open_ && core_waited_ns_ >= 0)
    core_waits_ns_[std::to_string(step)] = core_wait_ns() - core_waited_ns_;
  if (open_ && step + 1 >= open_->end) {
    close(step + 1, false);
  } else if (!open_) {
    // The first step also makes what is made once.
    const double seconds = steps_seen_++ == 0 ? 0 : steady_seconds() - step_began_s_;
    unprofiled_s_ = unprofiled_s_ == 0 ? seconds : 0.75 * unprofiled_s_ + 0.25 * seconds;
  }
  prepare_for(step + 2);
  if (status_) status_->set({{"current_step", step}});
}

void Profiler::close(int64_t behind, bool cut_short) {
  step_scope_.reset();
  auto window = std::exchange(open_, std::nullopt).value();
  window.end = behind;
  if (!window.settings.includes(process_.rank())) {
    tell("IDLE");
    return;
  }
  auto parts = std::make_shared<TraceParts>();
  parts->records = Recorder::instance().end();
  if (std::exchange(memory_, false)) {
    parts->memory = stop_memory_recording();
    parts->memory_device =
        options_.device == DeviceKind::kCpu ? -1 : static_cast<int>(process_.local_rank());
  }
  if (window.settings.with_stack) parts->stacks = stop_native_stacks();  // no allocation asks now
  parts->collected = KinetoSession::stop(device_type(options_.device));
  const auto now = static_cast<int64_t>(wall_seconds() * 1e9);
  const auto stem = window.settings.save_path / trace_stem(process_.rank(), ::getpid(), now);
  for (const auto& observer : observers_) observer->window_closes(window, stem);

  auto mm = header_;
  mm["level"] = window.settings.level;
  mm["steps"] = {window.begin, window.end};
  if (window_steps_ > 0) {
    mm["model_flop_per_step"] = window_flop_ / static_cast<double>(window_steps_);
    mm["peak_flop_per_second"] = peak_flop_per_second_;
  }
  if (!core_waits_ns_.empty()) mm["core_wait_ns"] = core_waits_ns_;
  if (unprofiled_s_ > 0) mm["unprofiled_step_ns"] = static_cast<int64_t>(unprofiled_s_ * 1e9);
  auto& header = parts->header;
  header["distributedInfo"] = distributed_info(process_, options_, parts->records);
  if (window.settings.with_memory) header["profile_memory"] = 1;
  if (window.settings.record_shapes) header["record_shapes"] = 1;
  if (window.settings.with_stack) header["with_stack"] = 1;
  if (window.settings.level >= 2) header["with_flops"] = 1;
  if (cut_short) header["truncated"] = true;
  header["mm"] = std::move(mm);
  if (!window.settings.metadata.empty())
    header["metadata"] = parse_json(window.settings.metadata, "metadata");

  tell("SAVING");
  writer_.add([this, parts, stem, window] {
    try {
      write_trace(std::move(*parts), stem);
      const auto file = stem.string() + ".pt.trace.json.gz";
      log_info("profile: steps {} to {} are in {}", window.begin, window.end - 1, file);
      note("written: " + file);
      if (window.settings.analyse) write_index(file);
      if (status_) status_->set({{"last_trace", file}, {"message", ""}});
    } catch (const std::exception& error) {
      log_warning("profile: no trace of steps {} to {}: {}; training goes on", window.begin,
                  window.end - 1, error.what());
      note(fmt::format("no trace: {}", error.what()));
      if (status_) status_->set({{"message", error.what()}});
    }
    if (status_) status_->set({{"state", "IDLE"}});
  });
}

int64_t Profiler::vote() { return watch_ ? watch_->count() : 0; }

void Profiler::heard(int64_t vote) {
  if (vote <= known_vote_) return;
  known_vote_ = vote;
  // Every rank hears the same vote, so all are here; rank 0 has the text.
  const auto text = watch_ ? watch_->newest() : std::string();
  take_request(process_.control().all_gather_strings(text, "profiler_config.json").front());
}

void Profiler::take_request(const std::string& text) {
  const auto request = read_dynamic_request(parse_json(text, kDynamicConfigName),
                                            kDynamicConfigName, settings_.profile);
  const auto answer = [&](const char* state, const std::string& message) {
    tell(state, {{"request", request.id}, {"message", message}});
    if (!message.empty()) note(message);
  };
  if (request.stop) {
    const bool was_open = open_.has_value();
    windows_.clear();
    if (was_open) close(step_ + 1, false);
    answer(was_open && writer_.busy() ? "SAVING" : "IDLE",
           was_open ? "" : "no collection was running");
    return;
  }
  if (request.start_step > 0 && request.start_step <= step_) {
    answer(open_ ? "RUNNING" : "IDLE", "step " + std::to_string(request.start_step) + " is over");
    if (process_.rank() == 0)
      log_warning("profile: {}: start_step {} is over, the run is at step {}; nothing is started",
                  kDynamicConfigName, request.start_step, step_);
    return;
  }
  Window window;
  window.begin = std::max(request.start_step, step_ + 1) + request.warmup;
  if (open_) window.begin = std::max(window.begin, open_->end);
  window.end = window.begin + request.steps;
  window.settings = own_settings();
  auto& s = window.settings;
  s.ranks = request.ranks;
  s.level = request.level;
  s.with_cpu = request.with_cpu;
  s.with_stack = request.with_stack;
  s.with_memory = request.with_memory;
  s.record_shapes = request.record_shapes;
  s.analyse = request.analyse;
  s.metadata = request.metadata;
  if (!request.folder.empty()) s.save_path = options_.output / request.folder;
  windows_.assign(1, window);  // the newest request counts
  answer(open_ ? "RUNNING" : "READY", "");
  note(fmt::format("asked to record steps {} to {}{}", window.begin, window.end - 1,
                   s.includes(process_.rank()) ? "" : " on other ranks"));
  if (process_.rank() == 0)
    log_info("profile: recording steps {} to {}", window.begin, window.end - 1);
}

/// The state and the steps it is about.
void Profiler::tell(const char* state, const Json& more) {
  if (!status_) return;
  Json members{{"state", state}, {"current_step", step_}};
  const auto* window = open_ ? &*open_ : windows_.empty() ? nullptr : &windows_.front();
  members["start_step"] = window == nullptr ? Json(nullptr) : Json(window->begin);
  members["stop_step"] = window == nullptr ? Json(nullptr) : Json(window->end);
  members.update(more);
  status_->set(members);
}

void Profiler::run_ends(const std::exception* error) noexcept {
  try {
    if (open_) {
      log_info("profile: the run ends inside a window; what was recorded is written");
      close(step_ + 1, true);
    }
    writer_.wait();
    watch_.reset();
    if (status_)
      status_->set({{"state", "ENDED"}, {"message", error == nullptr ? "" : error->what()}});
  } catch (const std::exception& other) {
    log_warning("profile: {}", other.what());
  }
}

std::shared_ptr<Profiler> make_profiler(ProcessContext& process, const RunOptions& options,
                                        Profiler::Settings settings, WindowObservers observers) {
  if (settings.profile.mode == ProfileMode::kOff) return nullptr;
  return std::make_shared<Profiler>(process, options, std::move(settings), std::move(observers));
}

}  // namespace triptych

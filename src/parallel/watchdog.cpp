#include "parallel/watchdog.h"

#include <unistd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/format.h"
#include "base/json.h"
#include "base/log.h"

namespace triptych {

namespace {

constexpr const char* kFailureKey = "abort/first";

std::string key(const char* stem, int64_t rank) { return stem + std::to_string(rank); }

void sleep_s(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

}  // namespace

Watchdog::Watchdog(Options options, c10::intrusive_ptr<c10d::Store> store,
                   std::shared_ptr<GroupHost> host)
    : options_(std::move(options)), store_(std::move(store)), host_(std::move(host)) {
  publish_state();
  answered_ = steady_seconds();
  thread_ = std::thread([this] { run(); });
  store_thread_ = std::thread([this] { watch_store(); });
}

Watchdog::~Watchdog() { stop(); }

void Watchdog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
  {
    const std::lock_guard lock(mutex_);
    store_watched_ = false;
  }
  wake_.notify_all();
  if (store_thread_.joinable() && store_thread_.get_id() != std::this_thread::get_id())
    store_thread_.join();
}

void Watchdog::watch_store() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(options_.poll_s),
                         [this] { return !store_watched_; })) {
    if (steady_seconds() - answered_ > options_.store_limit_s) end_without_store("does not answer");
  }
}

void Watchdog::run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, std::chrono::duration<double>(options_.poll_s),
                         [this] { return stopping_; })) {
    const bool leaving = leaving_;
    lock.unlock();
    try {
      publish_state();
      const auto failure = first_failure();
      answered_ = steady_seconds();
      if (!failure.empty() && !leaving) end_process(failure);
      const auto open = host_->log.oldest_open();
      const double open_s = open ? steady_seconds() - open->started : 0;
      if (open && open_s >= options_.warn_after_s) {
        warn_about(open->text, open_s);
      } else {
        warned_ = 0;
      }
    } catch (const std::exception&) {
      lock.lock();
      if (stopping_ || leaving_) return;
      lock.unlock();
      end_without_store("is gone");
    }
    lock.lock();
  }
}

void Watchdog::publish_state() {
  const auto open = host_->log.oldest_open();
  const auto last = host_->log.last_ended();
  const Json state = {{"beat", ++beat_},
                      {"host", options_.host_name},
                      {"step", host_->step.load()},
                      {"open_s", open ? steady_seconds() - open->started : -1.0},
                      {"text", open   ? open->text
                               : last ? last->text
                                      : std::string()}};
  store_->set(key("state/", options_.rank), dump_json(state));
}

Watchdog::State Watchdog::state(int64_t rank) {
  const auto name = key("state/", rank);
  State state{.rank = rank};
  if (!store_->check({name})) return state;
  const auto json = parse_json(store_->get_to_str(name), name);
  state.host = json.at("host").get<std::string>();
  state.beat = std::to_string(json.at("beat").get<int64_t>());
  state.step = json.at("step").get<int64_t>();
  state.open_s = json.at("open_s").get<double>();
  state.text = json.at("text").get<std::string>();
  return state;
}

std::vector<Watchdog::State> Watchdog::states() {
  std::vector<State> states;
  for (int64_t r = 0; r < options_.world_size; ++r) states.push_back(state(r));
  return states;
}

std::string Watchdog::first_failure() {
  return store_->check({kFailureKey}) ? store_->get_to_str(kFailureKey) : std::string();
}

bool Watchdog::publish_failure(const std::string& reason) {
  const auto who =
      fmt::format("rank {} ({}), step {}", options_.rank, options_.host_name, host_->step.load());
  const auto text = reason.starts_with(who) ? reason : fmt::format("{}, failed: {}", who, reason);
  return store_->compareSet(kFailureKey, "", text) == text;
}

void Watchdog::leave() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  try {
    store_->set(key("gone/", options_.rank), "1");
    if (options_.rank != 0) return;
    const auto before = states();
    const double start = steady_seconds(), silent = start + silence_s();
    for (bool all = false; !all && steady_seconds() < silent + 3;) {
      sleep_s(0.05);
      all = true;
      for (const auto& then : before) {
        const bool dead = steady_seconds() > silent && state(then.rank).beat == then.beat;
        all = all && (dead || store_->check({key("gone/", then.rank)}));
      }
    }
  } catch (const std::exception&) {  // nobody to wait for
  }
}

Watchdog::Verdict Watchdog::find_culprit(const std::string& collective, const std::string& cause) {
  try {
    const auto before = states();
    // long enough for a rank that failed to say so, and for a dead one to be missed
    for (const double deadline = steady_seconds() + silence_s(); steady_seconds() < deadline;
         sleep_s(options_.poll_s / 10)) {
      if (auto failure = first_failure(); !failure.empty()) return {.told_by = std::move(failure)};
    }
    Verdict verdict{.text = cause};
    for (const auto& now : states()) {
      if (now.rank == options_.rank) continue;
      if (now.beat == before[static_cast<size_t>(now.rank)].beat) {
        verdict.text +=
            fmt::format("; rank {} ({}) is gone, it was at step {}{}{}, when last heard of",
                        now.rank, now.host, now.step, now.text.empty() ? "" : ", ", now.text);
      } else if (now.text != collective) {
        verdict.text +=
            fmt::format("; rank {} ({}) is not there: step {}, {} {}", now.rank, now.host, now.step,
                        now.open_s >= 0 ? "it waits in" : "it computes after",
                        now.text.empty() ? "the start" : now.text);
      }
    }
    return verdict;
  } catch (const std::exception&) {
    return {.text = fmt::format("{}; rank 0 ({}), which serves the store, is gone", cause,
                                options_.address)};
  }
}

void Watchdog::warn_about(const std::string& collective, double open_s) {
  if (warned_ > 0 && open_s - warned_ < options_.warn_after_s) return;
  warned_ = open_s;
  std::string waiting, elsewhere;
  int64_t first_waiting = options_.rank;
  for (const auto& state : states()) {
    if (state.rank == options_.rank || state.text == collective) {
      waiting += fmt::format("{}{}", waiting.empty() ? "" : ", ", state.rank);
      first_waiting = std::min(first_waiting, state.rank);
    } else {
      elsewhere += fmt::format("; rank {} ({}) is at step {}, {} {}", state.rank, state.host,
                               state.step, state.open_s >= 0 ? "waits in" : "computes after",
                               state.text.empty() ? "the start" : state.text);
    }
  }
  if (first_waiting != options_.rank) return;  // one voice for all that wait in the same place
  log_warning("no progress for {:.0f} s: rank {} waits in {}{}", open_s, waiting, collective,
              elsewhere);
}

std::string Watchdog::place() const {
  const auto open = host_->log.oldest_open(), last = host_->log.last_ended();
  return fmt::format("here: step {}, {} {}", host_->step.load(),
                     open ? "waiting in" : "computing after",
                     open   ? open->text
                     : last ? last->text
                            : std::string("the start"));
}

void Watchdog::say_stopped(const std::string& why) const {
  log_message(options_.first_on_host && options_.rank > 0 ? LogLevel::kWarning : LogLevel::kInfo,
              fmt::format("stopped: {}", why));
}

void Watchdog::end_process(const std::string& why) {
  set_live_line("");
  say_stopped(fmt::format("{}; {}", why, place()));
  leave();
  ::_exit(options_.stopped_status);  // the main thread may be deep in a collective or a kernel
}

void Watchdog::end_without_store(const char* what) {
  set_live_line("");
  // rank 0 cannot speak for itself: rank 1 does, and one rank of every other host
  log_message(
      options_.first_on_host || options_.rank == 1 ? LogLevel::kError : LogLevel::kInfo,
      fmt::format("rank 0 ({}), which serves the store, {}; {}", options_.address, what, place()));
  ::_exit(options_.stopped_status);
}

}  // namespace triptych

#include "data/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "data/size_cache.h"
#include "data/step_layout.h"
#include "data/worker_pool.h"

namespace triptych {
namespace {

/// Labels that are predicted: that of a sample's first token has nothing before it.
int64_t count_labels(const Sample& sample) {
  if (sample.labels.empty()) return 0;
  return std::count_if(sample.labels.begin() + 1, sample.labels.end(),
                       [](int32_t label) { return label != kIgnoreLabel; });
}

RowCounts count(const std::vector<MicroBatch>& micro_batches) {
  RowCounts counts;
  for (const auto& micro_batch : micro_batches) {
    for (const auto& row : micro_batch.rows) {
      ++counts.rows;
      for (const auto& sample : row.samples) {
        ++counts.samples;
        counts.tokens += static_cast<int64_t>(sample.tokens.size());
        counts.labels += count_labels(sample);
      }
    }
  }
  return counts;
}

}  // namespace

/// The planning thread runs plan(); workers run decode(); the caller waits in next().
class Loader::Engine {
 public:
  Engine(const Dataset& dataset, const Processor& processor, const LoaderOptions& options,
         uint64_t seed, const LoaderLayout& layout, const StreamState& begin)
      : dataset_(dataset),
        processor_(processor),
        options_(options),
        layout_(layout),
        seed_(seed),
        order_(dataset.shares(), seed, options.shuffle),
        state_(begin),
        sizes_(dataset, processor, options.max_length, stop_),
        pool_(options.workers) {
    check(layout_);
    identify(state_);
    if (!begin.shares.empty()) check_resumes(begin, state_, order_.epoch_length(), source_names());
  }

  ~Engine() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    if (planner_.joinable()) planner_.join();
    // pool_ is the last member: its jobs, which return at once now, end before the rest goes.
  }

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void start() {
    if (!planner_.joinable()) planner_ = std::thread([this] { plan(); });
  }

  std::optional<StepBatch> next() {
    start();
    const auto begin = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [&] { return !pending_.empty() ? pending_.front()->jobs_left == 0 : ended_; });
    if (pending_.empty()) return std::nullopt;
    auto& step = *pending_.front();
    if (step.failure) std::rethrow_exception(step.failure);  // stays in front: the next call too
    auto batch = std::move(step.batch);
    state_ = std::move(step.after);
    bytes_ahead_ -= step.bytes;
    pending_.pop_front();
    lock.unlock();
    changed_.notify_all();

    batch.local = count(batch.micro_batches);
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    batch.wait_s = waited.count();
    return batch;
  }

  const StreamState& state() const { return state_; }

  int64_t steps_of_epochs(int64_t epochs) {
    require(epochs > 0, "train.epochs must be positive, got ", epochs);
    require(!planner_.joinable() && !options_.one_pass,
            "loader: steps_of_epochs is for an endless loader that has not started");
    int64_t rows = 0;
    if (!options_.packing && options_.on_bad_sample == OnBadSample::kStop) {
      rows = epochs * order_.epoch_length();
    } else {
      auto stream = make_stream({});
      // A row is handed out with the epoch it belongs to, so the first of the epoch after ends it.
      while (stream.next()->epoch < epochs) ++rows;
    }
    return (rows + layout_.global_batch - 1) / layout_.global_batch;
  }

  SkipReport skipped() const {
    SkipReport report{.bad = sizes_.num_bad(), .corrupt = 0, .messages = sizes_.bad_messages()};
    const std::lock_guard lock(mutex_);
    report.corrupt = static_cast<int64_t>(corrupt_.size());
    for (const auto& [ref, message] : corrupt_) {
      if (report.messages.size() < SizeCache::kMostMessages) report.messages.push_back(message);
    }
    return report;
  }

 private:
  struct PendingStep {
    StepBatch batch;
    StreamState after;
    uint64_t bytes = 0;
    int64_t jobs_left = 0;
    std::exception_ptr failure;
    int64_t failed_job = -1;  // the first in the order of samples wins, whichever thread was faster
  };

  /// One sample to decode, and where it goes.
  struct Job {
    PendingStep* step = nullptr;
    int64_t number = 0;
    RecordRef ref;
    uint64_t index = 0;
    bool blank = false;
    Sample* target = nullptr;
  };

  struct Stopped {};  // leaves the stream when the loader is being destroyed

  std::vector<std::string> source_names() const {
    std::vector<std::string> names;
    for (int32_t s = 0; s < dataset_.num_sources(); ++s) names.push_back(dataset_.file(s).name());
    return names;
  }

  /// Notes what the positions of a state refer to.
  void identify(StreamState& state) const {
    state.seed = seed_;
    state.shuffle = options_.shuffle;
    state.shares.clear();
    for (int32_t s = 0; s < dataset_.num_sources(); ++s) {
      state.shares.push_back(order_.epoch_share(s));
    }
  }

  // --- planning ----------------------------------------------------------------------------------

  RowStream make_stream(const StreamState& begin) {
    const RowStreamOptions rows{.max_length = options_.max_length,
                                .lookahead = options_.packing ? options_.lookahead : 1,
                                .one_pass = options_.one_pass};
    ensured_epoch_ = -1;
    ensure(begin.epoch, begin.waiting);
    return {order_.epoch_length(), rows,
            [this](int64_t epoch, int64_t position) { return length_of(epoch, position); }, begin};
  }

  void ensure(int64_t epoch, const std::vector<int64_t>& positions) {
    std::vector<RecordRef> refs;
    for (const auto position : positions) refs.push_back(order_.at(epoch, position));
    sizes_.ensure(refs, pool_);
  }

  /// Measures a stretch ahead, so that all workers have something to do.
  std::optional<int32_t> length_of(int64_t epoch, int64_t position) {
    const bool planned_before = epoch == ensured_epoch_ && position < ensured_until_;
    if (!planned_before) {
      const auto ahead = std::max<int64_t>(8 * pool_.size(), 32);
      const auto until = std::min(position + ahead, order_.epoch_length());
      std::vector<int64_t> positions;
      for (auto p = position; p < until; ++p) positions.push_back(p);
      ensure(epoch, positions);
      ensured_epoch_ = epoch;
      ensured_until_ = until;
    }
    if (stop_) throw Stopped{};
    const auto ref = order_.at(epoch, position);
    if (const auto* size = sizes_.at(ref)) return size->tokens;
    if (options_.on_bad_sample == OnBadSample::kStop) sizes_.refuse(ref);
    return std::nullopt;
  }

  void plan() {
    try {
      auto stream = make_stream(state_);
      int64_t logged = 0;
      while (!stop_) {
        std::vector<PlannedRow> rows;
        while (static_cast<int64_t>(rows.size()) < layout_.global_batch) {
          auto row = stream.next();
          if (stop_) return;
          if (!row) break;
          rows.push_back(std::move(*row));
        }
        log_bad(logged);
        if (rows.empty()) break;
        if (!hand_out(rows, stream)) return;
      }
    } catch (...) {
      if (stop_) return;
      const std::lock_guard lock(mutex_);
      pending_.push_back(std::make_unique<PendingStep>());
      pending_.back()->failure = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
  }

  void log_bad(int64_t& logged) const {
    if (options_.on_bad_sample != OnBadSample::kSkip || layout_.data_rank != 0) return;
    if (sizes_.num_bad() == logged) return;
    const auto messages = sizes_.bad_messages();
    for (; logged < static_cast<int64_t>(messages.size()); ++logged) {
      log_warning("skipped: {}", messages[static_cast<size_t>(logged)]);
    }
  }

  uint64_t bytes_of(RecordRef ref) const {
    const auto* size = sizes_.at(ref);
    if (size == nullptr) return 0;
    return (options_.pixels ? size->media_bytes : 0) + static_cast<uint64_t>(size->tokens) * 8;
  }

  /// Lays out this rank's share of a step and queues its samples, as far as memory allows.
  bool hand_out(const std::vector<PlannedRow>& rows, const RowStream& stream) {
    auto owned = std::make_unique<PendingStep>();
    auto& step = *owned;
    step.after = stream.state();
    identify(step.after);
    step.batch.planned = count_planned(rows);
    step.batch.epoch = epoch_reached(rows, stream);
    const auto jobs = make_jobs(rows, step);
    step.jobs_left = static_cast<int64_t>(jobs.size());
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] {
        return stop_ || static_cast<int64_t>(pending_.size()) < options_.steps_ahead;
      });
      if (stop_) return false;
      pending_.push_back(std::move(owned));
    }
    changed_.notify_all();
    for (const auto& job : jobs) {
      if (!reserve(job)) return false;
      pool_.submit([this, job] { decode(job); });
    }
    return true;
  }

  /// Waits until a sample fits beside those ahead; a step that the caller waits for always fits.
  bool reserve(const Job& job) {
    const auto bytes = bytes_of(job.ref);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return stop_ || bytes_ahead_ + bytes <= options_.memory_bytes ||
             pending_.front().get() == job.step;
    });
    bytes_ahead_ += bytes;
    job.step->bytes += bytes;
    return !stop_;
  }

  RowCounts count_planned(const std::vector<PlannedRow>& rows) const {
    RowCounts counts{.rows = static_cast<int64_t>(rows.size())};
    for (const auto& row : rows) {
      for (const auto& item : row.items) {
        const auto* size = sizes_.at(order_.at(row.epoch, item.position));
        ++counts.samples;
        counts.tokens += size->tokens;
        counts.labels += size->labels;
      }
    }
    return counts;
  }

  double epoch_reached(const std::vector<PlannedRow>& rows, const RowStream& stream) const {
    const auto state = stream.state();
    const auto done = state.position - static_cast<int64_t>(state.waiting.size());
    if (state.epoch > rows.back().epoch) return static_cast<double>(state.epoch);
    return static_cast<double>(rows.back().epoch) +
           static_cast<double>(done) / static_cast<double>(order_.epoch_length());
  }

  /// Makes the places of this rank's samples and returns how to fill them.
  std::vector<Job> make_jobs(const std::vector<PlannedRow>& rows, PendingStep& step) {
    const auto places = lay_out(layout_, rows);
    step.batch.micro_batches.resize(static_cast<size_t>(places.back().micro_batch + 1));
    for (auto& micro_batch : step.batch.micro_batches)
      micro_batch.rows.resize(static_cast<size_t>(layout_.micro_batch));
    std::vector<Job> jobs;
    for (const auto& place : places) {
      const auto& row = rows[place.row];
      auto& micro_batch = step.batch.micro_batches[static_cast<size_t>(place.micro_batch)];
      auto& samples = micro_batch.rows[static_cast<size_t>(place.in_micro_batch)].samples;
      samples.resize(place.blank ? 1 : row.items.size());
      for (size_t k = 0; k < samples.size(); ++k) {
        const auto position = row.items[k].position;
        jobs.push_back(
            {.step = &step,
             .number = static_cast<int64_t>(jobs.size()),
             .ref = order_.at(row.epoch, position),
             .index = static_cast<uint64_t>(row.epoch * order_.epoch_length() + position),
             .blank = place.blank,
             .target = &samples[k]});
      }
    }
    return jobs;
  }

  // --- decoding ----------------------------------------------------------------------------------

  void decode(const Job& job) {
    Sample sample;
    std::exception_ptr failure;
    if (!stop_) {
      try {
        sample = make(job);
      } catch (...) {
        failure = std::current_exception();
      }
    }
    {
      const std::lock_guard lock(mutex_);
      *job.target = std::move(sample);
      auto& step = *job.step;
      if (failure && (step.failed_job < 0 || job.number < step.failed_job)) {
        step.failure = failure;
        step.failed_job = job.number;
      }
      if (--step.jobs_left > 0) return;
    }
    changed_.notify_all();
  }

  Sample make(const Job& job) {
    const auto conversation = dataset_.conversation(job.ref);
    Sample sample;
    if (job.blank) {
      sample = processor_.make_blank(conversation);
    } else if (!options_.pixels) {
      sample = processor_.make_without_pixels(conversation);
    } else if (options_.on_bad_sample == OnBadSample::kStop) {
      sample = processor_.make(conversation);
    } else {
      try {
        sample = processor_.make(conversation);
      } catch (const DataError& error) {
        note_corrupt(job.ref, error.what());
        sample = processor_.make_blank(conversation);
      }
    }
    const auto planned = sizes_.at(job.ref)->tokens;
    require<DataError>(static_cast<int64_t>(sample.tokens.size()) == planned, conversation.origin,
                       ": has ", sample.tokens.size(), " tokens, it had ", planned,
                       " when planned; did its media change meanwhile?");
    sample.index = job.index;
    return sample;
  }

  void note_corrupt(RecordRef ref, const std::string& message) {
    {
      const std::lock_guard lock(mutex_);
      if (!corrupt_.emplace(std::pair(ref.source, ref.record), message).second) return;
    }
    log_warning("made blank: {}", message);
  }

  const Dataset& dataset_;
  const Processor& processor_;
  const LoaderOptions options_;
  const LoaderLayout layout_;
  const uint64_t seed_;
  const StreamOrder order_;
  StreamState state_;  // after the step handed out last; read by the planner only when it starts
  std::atomic<bool> stop_ = false;
  SizeCache sizes_;
  int64_t ensured_epoch_ = -1, ensured_until_ = 0;  // of the planner

  mutable std::mutex mutex_;         // guards what follows
  std::condition_variable changed_;  // for caller and planner
  std::deque<std::unique_ptr<PendingStep>> pending_;
  uint64_t bytes_ahead_ = 0;
  bool ended_ = false;
  std::map<std::pair<int32_t, int64_t>, std::string> corrupt_;

  std::thread planner_;
  WorkerPool pool_;
};

Loader::Loader(const Dataset& dataset, const Processor& processor, const LoaderOptions& options,
               uint64_t seed, const LoaderLayout& layout, const StreamState& begin)
    : engine_(std::make_unique<Engine>(dataset, processor, options, seed, layout, begin)) {}
Loader::~Loader() = default;
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;

void Loader::start() { engine_->start(); }
std::optional<StepBatch> Loader::next() { return engine_->next(); }

StepBatch Loader::next_step() {
  auto batch = engine_->next();
  require(batch.has_value(), "loader: next_step beyond the end of one pass");
  return std::move(*batch);
}

const StreamState& Loader::state() const { return engine_->state(); }
int64_t Loader::steps_of_epochs(int64_t epochs) { return engine_->steps_of_epochs(epochs); }
SkipReport Loader::skipped() const { return engine_->skipped(); }

}  // namespace triptych

#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/clock.h"
#include "base/format.h"
#include "base/log.h"
#include "base/trace_scope.h"
#include "checkpoint/checkpoint_writer.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_report.h"
#include "kernels/memory_scope.h"
#include "train/matrix_peak.h"
#include "train/memory_use.h"
#include "train/run_checkpoint.h"
#include "train/run_data.h"
#include "train/run_folder.h"
#include "train/run_layout.h"
#include "train/run_log.h"
#include "train/run_setup.h"
#include "train/save_model.h"
#include "train/stage.h"

namespace triptych {

namespace {

class Trainer {
 public:
  Trainer(ProcessContext& process, const ResolvedRun& run, const std::optional<Checkpoint>& resume,
          const StepObservers& observers);

  int run(SignalFlags& signals);

 private:
  void announce() const;
  void one_step();
  void note_memory(StepTiming& timing);
  void check_finite(const StepReport& report, std::span<const MicroBatch> micro_batches);
  void report_skipped_samples();
  void validate();
  void save();
  bool agree_to_save(bool mine);
  bool must_stop(const SignalFlags& signals) const;
  void finish();

  bool is_first() const { return process_.rank() == 0; }
  int64_t data_rank() const { return process_.coordinates()[MeshDim::kData]; }

  ProcessContext& process_;
  const RunOptions& options_;
  const double begin_ = steady_seconds();
  Group& data_group_;
  at::Device device_;
  RunState state_;
  std::unique_ptr<QwenProcessor> processor_;
  Dataset dataset_;
  std::optional<Dataset> validation_;
  Loader loader_;
  int64_t steps_;
  LoadedModel loaded_;
  std::unique_ptr<Stage> stage_;
  ShardedOptimizer optimizer_;
  CheckpointWriter writer_;
  TrainStep train_step_;
  Schedule schedule_;
  RunLog log_;
  const StepObservers& observers_;
  double matrix_peak_ = 0;
  int64_t saved_step_ = -1, validated_step_ = -1;
  size_t reported_samples_ = 0;
  std::vector<int64_t> most_memory_;  ///< by rank: the largest peak of a step
};

/// Every stage's, on every rank.
std::map<std::string, int64_t> gather_counts(ProcessContext& process, const LoadedModel& loaded,
                                             std::map<std::string, int64_t> mine) {
  if (!is_spread(loaded)) return mine;
  for (const auto& text : process.control().all_gather_strings(dump_json(mine), "update counts"))
    mine.merge(parse_json(text, "update counts").get<std::map<std::string, int64_t>>());
  return mine;
}

Agree make_agreement(ProcessContext& process) {
  if (process.world_size() == 1) return {};
  auto& group = process.background();
  return [&group](bool ok) {
    const auto flag = at::tensor({ok ? 1 : 0}, at::kInt);
    group.all_reduce(flag, ReduceOp::kMin, "save");
    return flag.item<int>() == 1;
  };
}

StepSettings with_writer(StepSettings settings, CheckpointWriter& writer) {
  settings.before_update = [&writer] { writer.before_update(); };
  return settings;
}

// Members are made in this order so that what is cheap to check comes before what is slow to load,
// and decoding runs while weights are read.
Trainer::Trainer(ProcessContext& process, const ResolvedRun& run,
                 const std::optional<Checkpoint>& resume, const StepObservers& observers)
    : process_(process),
      options_(run.options),
      data_group_(process.group({MeshDim::kData})),
      device_(device_of(options_, process.local_rank())),
      state_(resume ? read_run_state(*resume) : RunState()),
      processor_(make_run_processor(options_)),
      dataset_(open_dataset(options_.data.train, {})),
      validation_(open_validation(options_)),
      loader_(dataset_, *processor_, loader_options(options_.data),
              static_cast<uint64_t>(options_.seed),
              training_layout(options_, data_rank(), data_group_.size()), state_.data),
      steps_(count_steps(options_.train, loader_)),
      loaded_((loader_.start(), load_counted(process, options_, device_))),
      stage_(Stage::make(process, options_, loaded_, device_)),
      optimizer_(loaded_.model.parameters, adamw_settings(options_.optimizer),
                 sharding_settings(options_), optimizer_groups(process, options_, loaded_)),
      writer_({.output = options_.output,
               .keep = options_.checkpoint.keep,
               .async = options_.checkpoint.async},
              static_cast<int>(process.rank()), static_cast<int>(process.world_size()),
              make_agreement(process)),
      train_step_(loaded_, optimizer_, data_group_,
                  with_writer(step_settings(options_, loaded_, device_), writer_), stage_.get()),
      schedule_(make_schedule(options_, steps_)),
      log_(options_, is_first(), state_.step, steps_, process.world_size()),
      observers_(observers) {
  if (resume) {
    restore(*resume, state_, loaded_, optimizer_);
    saved_step_ = state_.step;
    log_info("going on from step {} ({})", state_.step, resume->folder.string());
  }
  trim_cpu_allocator();
}

void Trainer::announce() const {
  const auto count = [](int64_t n) { return short_count(static_cast<double>(n)); };
  log_info("{}: {} parameters, {} trained; {}; {} of {} on {} x {}", loaded_.family->name(),
           count(loaded_.num_parameters()), count(loaded_.num_trained()),
           counted(dataset_.size(), "sample"), counted(steps_, "step"),
           counted(options_.train.global_batch, "row"), process_.world_size(),
           counted(process_.threads(), "thread"));
  if (stage_ && is_first())
    log_info("{}", describe_stages(loaded_, pipeline_shape(options_, data_group_.size())));
}

int Trainer::run(SignalFlags& signals) {
  announce();
  reset_memory_peak();  // what loading took is no step's
  for (const auto& observer : observers_)
    observer->model_is_there(
        {.model = loaded_, .first_step = state_.step + 1, .last_step = steps_});
  signals.work_begins();
  while (state_.step < steps_) {
    for (const auto& observer : observers_) observer->step_begins(state_.step + 1);
    one_step();
    for (const auto& observer : observers_) observer->step_ends(state_.step);
    const auto& train = options_.train;
    if (train.validate_every > 0 && state_.step % train.validate_every == 0) validate();
    const bool last = state_.step == steps_;
    const bool stop = !last && must_stop(signals);
    const int64_t every = options_.checkpoint.every;
    const bool asked = agree_to_save(signals.take_save_request());
    if (asked) log_info("SIGUSR2: saving after step {}", state_.step);
    if (stop || asked || (every > 0 && state_.step % every == 0)) save();
    if (stop) {
      writer_.wait();
      log_info("stopped after step {} of {} with a checkpoint; start again to go on", state_.step,
               steps_);
      return kExitStopped;
    }
  }
  finish();
  return kExitDone;
}

/// Whether any rank was asked to save; the observers' votes travel along.
bool Trainer::agree_to_save(bool mine) {
  std::vector<int64_t> votes{mine ? 1 : 0};
  for (const auto& observer : observers_) votes.push_back(observer->vote());
  const auto all = at::tensor(votes, at::kLong);
  process_.control().all_reduce(all, ReduceOp::kMax, "flag");
  const auto* heard = all.const_data_ptr<int64_t>();
  for (size_t i = 0; i < observers_.size(); ++i) observers_[i]->heard(heard[i + 1]);
  return heard[0] != 0;
}

void Trainer::one_step() {
  const double start = steady_seconds();
  const int64_t step = state_.step + 1;
  process_.set_step(step);
  set_memory_step(step);
  const auto batch = [&] {
    const TraceScope scope("data_wait");
    return loader_.next_step();
  }();
  const double rate = schedule_.rate(state_.step);
  const auto report = train_step_.run(batch.micro_batches, step, rate);
  StepTiming timing{.step = step,
                    .lr = rate,
                    .seconds = steady_seconds() - start,
                    .data_seconds = batch.wait_s,
                    .epoch = batch.epoch,
                    .peak_memory_bytes = peak_memory_bytes(device_),
                    .memory_limit_bytes = device_memory_bytes(device_)};
  check_finite(report, batch.micro_batches);
  state_.step = step;
  note_memory(timing);
  if (matrix_peak_ == 0) {
    matrix_peak_ = measure_matrix_peak(device_, compute_type(options_));
    reset_memory_peak();  // that is no step's either
  }
  timing.peak_flop_per_second = matrix_peak_ * static_cast<double>(process_.world_size());
  for (const auto& observer : observers_)
    observer->step_worked({.flop = report.flop, .peak_flop_per_second = matrix_peak_});
  timing.skipped = state_.skipped;
  log_.step_done(report, timing);
  report_skipped_samples();
}

void Trainer::note_memory(StepTiming& timing) {
  timing.memory = step_memory(process_, device_);
  most_memory_.resize(timing.memory.ranks.size());
  for (size_t rank = 0; rank < most_memory_.size(); ++rank)
    most_memory_[rank] = std::max(most_memory_[rank], timing.memory.ranks[rank]);
  if (options_.profile.memory.print_peaks && is_first())
    log_info("step {}: tensor memory at most {}", timing.step, peaks_text(timing.memory.ranks));
}

void Trainer::check_finite(const StepReport& report, std::span<const MicroBatch> micro_batches) {
  const int64_t step = state_.step + 1;
  if (report.finite) {
    if (!report.updated) log_warning("step {}: no label token, nothing was learned", step);
    return;
  }
  // Without a finite loss no gradient was computed, and there is no norm to show.
  const auto what =
      std::isfinite(report.loss)
          ? fmt::format("step {}: gradient norm {} is not finite (loss {})", step,
                        without_nan_sign(report.norm), report.loss)
          : fmt::format("step {}: loss {} is not finite", step, without_nan_sign(report.loss));
  if (options_.train.on_nonfinite == OnNonfinite::kSkip) {
    ++state_.skipped;
    if (is_first()) log_warning("{}: the update is left out ({} so far)", what, state_.skipped);
    return;
  }
  const auto found = train_step_.find_nonfinite(micro_batches, step);
  const Json mine{{"order", found.order}, {"text", found.text}};
  const auto places = process_.control().all_gather_strings(dump_json(mine));
  std::string place = "no layer shows it when the step is computed again";
  int64_t first = NonfinitePlace().order;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    const auto theirs = parse_json(places[rank], "place");
    if (theirs["order"].get<int64_t>() >= first) continue;
    first = theirs["order"].get<int64_t>();
    place = fmt::format("first seen in {} (rank {})", theirs["text"].get<std::string>(), rank);
  }
  fail(what, "; ", place,
       "; nothing was changed by this step. See train.on_nonfinite, optimizer.lr and "
       "optimizer.clip_norm");
}

void Trainer::report_skipped_samples() {
  const auto skipped = loader_.skipped();
  for (; reported_samples_ < skipped.messages.size(); ++reported_samples_) {
    const auto& message = skipped.messages[reported_samples_];
    if (is_first()) {
      log_warning("left out: {}", message);
    } else {
      log_info("left out: {}", message);
    }
  }
}

void Trainer::validate() {
  if (!validation_ || validated_step_ == state_.step) return;
  validated_step_ = state_.step;
  log_.activity("validating");
  Loader loader(*validation_, *processor_, validation_options(options_.data),
                static_cast<uint64_t>(options_.seed),
                {.data_rank = data_rank(),
                 .data_size = data_group_.size(),
                 .global_batch = options_.train.micro_batch * data_group_.size(),
                 .micro_batch = options_.train.micro_batch});
  LossSum mine;
  while (const auto batch = loader.next()) {
    const auto part = train_step_.evaluate(batch->micro_batches);
    mine.loss += part.loss;
    mine.tokens += part.tokens;
  }
  const auto sums = at::tensor({mine.loss, mine.tokens}, at::kDouble).to(device_);
  if (loaded_.groups.context_size() > 1)  // losses of own tokens; labels were counted by all alike
    loaded_.groups.context->all_reduce(sums.narrow(0, 0, 1), ReduceOp::kSum, "validation");
  train_step_.losses().all_reduce(sums, ReduceOp::kSum, "validation");
  const auto total = sums.cpu();
  const auto* sum = total.const_data_ptr<double>();
  require<DataError>(sum[1] > 0, "data.validation: no label token in it");
  log_.validated(state_.step, {.loss = sum[0], .tokens = sum[1]});
}

void Trainer::save() {
  if (saved_step_ == state_.step) return;
  const TraceScope scope("checkpoint: save");
  const MemoryScope memory(MemoryPhase::kSave);
  saved_step_ = state_.step;
  log_.activity("saving");
  state_.data = loader_.state();
  state_.optimizer_steps = optimizer_.steps();
  state_.deviating_steps = gather_counts(process_, loaded_, optimizer_.deviating_steps());
  writer_.save(state_.step, weights_to_save(loaded_), optimizer_pieces(loaded_, optimizer_),
               state_.to_json());
}

bool Trainer::must_stop(const SignalFlags& signals) const {
  require(signals.stop() != StopRequest::kStopNow, "stopped by ", signals.stop_signal(),
          " a second time, without saving; the newest checkpoint is of step ", saved_step_);
  const bool asked = signals.stop() == StopRequest::kSaveAndStop;
  const double limit = options_.train.max_time_s;
  const bool late = limit > 0 && steady_seconds() - begin_ >= limit;
  if (asked) log_info("{}: saving after step {}", signals.stop_signal(), state_.step);
  if (late) log_info("train.max_time_s = {} is over: saving after step {}", limit, state_.step);
  return process_.any(asked || late);
}

void Trainer::finish() {
  if (options_.train.validate_every > 0) validate();
  save();
  writer_.wait();
  const auto final_folder = options_.output / "final";
  if (is_first()) log_.activity("writing final/");
  if (is_first() || is_spread(loaded_)) save_model(loaded_, final_folder, is_first());
  const auto skipped = loader_.skipped();
  if (skipped.bad + skipped.corrupt > 0)
    log_warning("left out: {}, see log.txt", counted(skipped.bad + skipped.corrupt, "sample"));
  if (state_.skipped > 0) log_warning("left out: {}", counted(state_.skipped, "update"));
  if (!most_memory_.empty())
    log_info("tensor memory of a step at most: {}", peaks_text(most_memory_));
  log_info("done after step {} in {}: {}", state_.step, duration_text(steady_seconds() - begin_),
           final_folder.string());
}

int train_observed(ProcessContext& process, const ResolvedRun& run, bool overwrite,
                   const std::string& version, const StepObservers& observers,
                   SignalFlags& signals) {
  const auto& options = run.options;
  const auto layout = check_layout(options, process.world_size(), process.local_world_size());
  process.set_mesh(layout.mesh);
  if (process.rank() == 0 && !layout.advice.empty()) log_warning("{}", layout.advice);
  process.compare_configuration(parse_json(options_json(refer(options)), "run options"), version);
  if (options.train.deterministic) at::globalContext().setDeterministicAlgorithms(true, false);
  std::optional<FolderLock> lock;
  if (process.rank() == 0) lock.emplace(options.output);
  const auto resume = agree_on_resume(process, options, overwrite);
  set_log_file(options.output / "log.txt");
  open_memory_books(process.rank(), options, device_of(options, process.local_rank()));
  for (const auto& observer : observers) observer->run_opens();
  try {
    Trainer trainer(process, run, resume, observers);
    if (process.rank() == 0 && resume) write_run_file(options);
    return trainer.run(signals);
  } catch (const std::exception& error) {
    if (const auto words = out_of_memory_words(error); !words.empty()) throw OutOfMemory(words);
    throw;
  }
}

}  // namespace

int train(ProcessContext& process, const ResolvedRun& run, bool overwrite,
          const std::string& version, SignalFlags& signals, const StepObservers& observers) {
  try {
    const int status = train_observed(process, run, overwrite, version, observers, signals);
    for (const auto& observer : observers) observer->run_ends(nullptr);
    return status;
  } catch (const std::exception& error) {
    for (const auto& observer : observers) observer->run_ends(&error);
    throw;
  }
}

}  // namespace triptych

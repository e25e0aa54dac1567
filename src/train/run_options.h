#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/option_io.h"
#include "base/options.h"
#include "checkpoint/options.h"
#include "data/options.h"
#include "models/qwen2_5_vl/options.h"
#include "parallel/batch_plan.h"
#include "parallel/options.h"
#include "train/schedule.h"

namespace triptych {

enum class Task { kSft, kDiffusion };
constexpr std::array<std::string_view, 2> option_names(Task) { return {"sft", "diffusion"}; }

enum class DeviceKind { kCpu, kCuda, kNpu };
constexpr std::array<std::string_view, 3> option_names(DeviceKind) {
  return {"cpu", "cuda", "npu"};
}

enum class InitialWeights { kLoad, kRandom };
constexpr std::array<std::string_view, 2> option_names(InitialWeights) {
  return {"load", "random"};
}

enum class Precision { kFp32, kBf16 };
constexpr std::array<std::string_view, 2> option_names(Precision) { return {"fp32", "bf16"}; }

namespace qwen2_5_vl {
constexpr std::array<std::string_view, 2> option_names(VideoPositionRule) {
  return {"max_hw", "max_all"};
}
}  // namespace qwen2_5_vl

struct LoraOptions {
  int64_t rank = 16;
  double alpha = 32, dropout = 0;
  std::variant<std::vector<std::string>, std::string> targets =
      std::vector<std::string>{"q_proj", "k_proj", "v_proj", "o_proj"};
  bool fused_qkv = false;

  static constexpr auto fields() {
    using O = LoraOptions;
    return std::tuple(
        field("rank", &O::rank, at_least(1), "Columns of A and rows of B."),
        field("alpha", &O::alpha, above(0), "The update is scaled by alpha / rank."),
        field("dropout", &O::dropout, between_below(0, 1), "On the input of A, while training."),
        field("targets", &O::targets,
              "As peft: a list of names or suffixes of modules, or one full-match pattern."),
        field("fused_qkv", &O::fused_qkv, "CogVideoX: one A for q, k and v."));
  }
};

struct ModelOptions {
  std::filesystem::path path;
  std::string preset;
  InitialWeights weights = InitialWeights::kLoad;
  Precision precision = Precision::kBf16;
  std::vector<std::string> freeze;
  qwen2_5_vl::VideoPositionRule video_position_rule = qwen2_5_vl::VideoPositionRule::kMaxHw;
  bool check_finite = false;
  double drop_path = 0;
  std::optional<LoraOptions> lora;

  static constexpr auto fields() {
    using O = ModelOptions;
    return std::tuple(
        field("path", &O::path, "Hub folder: config, weights, tokenizer and processor files."),
        field("preset", &O::preset,
              "A named size instead of a folder's config, e.g. \"qwen2_5_vl_3b\"; must agree if "
              "both are given."),
        field("weights", &O::weights,
              "load (from path), or random (the reference's distributions, fixed by the seed)."),
        field("precision", &O::precision, "fp32, or bf16 (bf16 compute, fp32 master weights)."),
        field("freeze", &O::freeze,
              "Parts (vision, projector, text), or glob patterns on hub parameter names."),
        field("video_position_rule", &O::video_position_rule,
              "Qwen2.5-VL: how text positions go on after a video."),
        field("check_finite", &O::check_finite,
              "Refuse weights that hold NaN or infinity, naming the first such tensor."),
        field("drop_path", &O::drop_path, between_below(0, 1),
              "InternVL2's vision tower: share of layers left out while training."),
        field("lora", &O::lora, "Low-rank adapters; absent: full fine-tuning."));
  }
};

constexpr std::array<std::string_view, 4> option_names(LossAverage) {
  return {"token", "micro_batch", "sample", "square"};
}

enum class OnNonfinite { kStop, kSkip };
constexpr std::array<std::string_view, 2> option_names(OnNonfinite) { return {"stop", "skip"}; }

struct TrainOptions {
  int64_t steps = 0;
  double epochs = 0;
  int64_t global_batch = 32, micro_batch = 1;
  LossAverage loss_average = LossAverage::kToken;
  int64_t validate_every = 100;
  OnNonfinite on_nonfinite = OnNonfinite::kStop;
  double max_time_s = 0;
  bool deterministic = false;

  static constexpr auto fields() {
    using O = TrainOptions;
    return std::tuple(
        field("steps", &O::steps, at_least(0),
              "Optimizer steps of the whole run; 0: epochs decides. With both, whichever ends "
              "first."),
        field("epochs", &O::epochs, at_least(0),
              "Passes over the data instead of steps; 0: steps decides."),
        field("global_batch", &O::global_batch, at_least(1),
              "Rows per optimizer step over all ranks: samples, or packs when packing."),
        field("micro_batch", &O::micro_batch, at_least(1),
              "Rows that go through the model together."),
        field("loss_average", &O::loss_average,
              "Over what the loss is averaged: token is over all label tokens of the optimizer "
              "step."),
        field("validate_every", &O::validate_every, at_least(0),
              "Optimizer steps between validations; 0 = never."),
        field("on_nonfinite", &O::on_nonfinite,
              "Loss or gradient norm NaN or infinite: stop, or skip the update (counted)."),
        field("max_time_s", &O::max_time_s, at_least(0),
              "Save and exit 75 after so many seconds; 0 = none."),
        field("deterministic", &O::deterministic, "Deterministic kernels only."));
  }
};

enum class OptimizerName { kAdamW };
constexpr std::array<std::string_view, 1> option_names(OptimizerName) { return {"adamw"}; }

enum class WeightDecayOn { kMatrices, kAll };
constexpr std::array<std::string_view, 2> option_names(WeightDecayOn) {
  return {"matrices", "all"};
}

struct OptimizerOptions {
  OptimizerName name = OptimizerName::kAdamW;
  double lr = 1e-5;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8, weight_decay = 0;
  WeightDecayOn weight_decay_on = WeightDecayOn::kMatrices;
  double clip_norm = 1.0;
  bool offload = false;

  static constexpr auto fields() {
    using O = OptimizerOptions;
    return std::tuple(
        field("name", &O::name, "The update rule."),
        field("lr", &O::lr, at_least(0), "Learning rate after warm-up."),
        field("betas", &O::betas, between_below(0, 1), "Decay of the two moments."),
        field("eps", &O::eps, above(0), "Added to the root of the second moment."),
        field("weight_decay", &O::weight_decay, at_least(0), "Decoupled, times the rate."),
        field("weight_decay_on", &O::weight_decay_on,
              "matrices (two or more dims: no norms, no biases), or all."),
        field("clip_norm", &O::clip_norm, at_least(0),
              "Largest norm of the whole gradient; 0 = off."),
        field("offload", &O::offload, "Master weights and moments in host memory."));
  }
};

constexpr std::array<std::string_view, 3> option_names(ScheduleKind) {
  return {"constant", "linear", "cosine"};
}

struct ScheduleOptions {
  ScheduleKind name = ScheduleKind::kCosine;
  int64_t warmup_steps = 0;
  double min_lr = 0;

  static constexpr auto fields() {
    using O = ScheduleOptions;
    return std::tuple(
        field("name", &O::name, "How the learning rate falls after warm-up."),
        field("warmup_steps", &O::warmup_steps, at_least(0), "Steps of linear rise from 0."),
        field("min_lr", &O::min_lr, at_least(0), "Where the fall ends."));
  }
};

struct LogOptions {
  int64_t every = 1;
  bool tensorboard = true;

  static constexpr auto fields() {
    using O = LogOptions;
    return std::tuple(
        field("every", &O::every, at_least(1), "Optimizer steps between lines on the console."),
        field("tensorboard", &O::tensorboard, "Also write event files for TensorBoard."));
  }
};

enum class ProfileMode { kOff, kStatic, kDynamic };
constexpr std::array<std::string_view, 3> option_names(ProfileMode) {
  return {"off", "static", "dynamic"};
}

struct ProfileMemoryOptions {
  std::vector<std::vector<int64_t>> windows;
  std::vector<int64_t> ranks = {0};
  int64_t max_entries = 0;
  std::string save_path = "traces/memory";
  bool print_peaks = false;

  static constexpr auto fields() {
    using O = ProfileMemoryOptions;
    return std::tuple(
        field("windows", &O::windows, at_least(0),
              "Half-open ranges of steps; step 0 = building the model."),
        field("ranks", &O::ranks, at_least(-1), "Global ranks; [-1] = all."),
        field("max_entries", &O::max_entries, at_least(0), "Events kept; 0 = unlimited."),
        field("save_path", &O::save_path, "Folder of the snapshots, relative to output."),
        field("print_peaks", &O::print_peaks, "Print the peak of each step and rank."));
  }
};

struct ProfileOptions {
  ProfileMode mode = ProfileMode::kOff;
  std::vector<std::vector<int64_t>> windows = {{11, 12}};
  std::vector<int64_t> ranks = {0};
  int64_t level = 1;
  bool with_cpu = true, with_stack = false, with_memory = false, record_shapes = false,
       analyse = true;
  std::string save_path = "traces", config_path = "profile";
  ProfileMemoryOptions memory;

  static constexpr auto fields() {
    using O = ProfileOptions;
    return std::tuple(
        field("mode", &O::mode, "off, static (windows), or dynamic (a watched file)."),
        field("windows", &O::windows, at_least(0),
              "static: half-open ranges of steps, numbered as in metrics.jsonl."),
        field("ranks", &O::ranks, at_least(-1), "Global ranks; [-1] = all."),
        field("level", &O::level, between(0, 2),
              "0 operators and kernels, 1 + runtime, flows, collectives, 2 + driver, sync, flop."),
        field("with_cpu", &O::with_cpu, "Record the host side."),
        field("with_stack", &O::with_stack,
              "Modules inside of layers; native call stacks of operators above 100 us."),
        field("with_memory", &O::with_memory, "Record allocations: kind, layer, bytes."),
        field("record_shapes", &O::record_shapes, "Record the shapes of inputs."),
        field("analyse", &O::analyse, "Write the viewer's index at the end of a window."),
        field("save_path", &O::save_path, "Folder of the traces, relative to output."),
        field("config_path", &O::config_path, "dynamic: the watched folder, relative to output."),
        field("memory", &O::memory, "Allocator snapshots."));
  }
};

struct LaunchOptions {
  int64_t max_restarts = 0;
  double timeout_s = 600, warn_after_s = 60;
  bool check_collectives = false;

  static constexpr auto fields() {
    using O = LaunchOptions;
    return std::tuple(
        field("max_restarts", &O::max_restarts, at_least(0),
              "How often `train --nproc N` starts again from the last checkpoint."),
        field("timeout_s", &O::timeout_s, above(0), "A collective that takes longer ends the run."),
        field("warn_after_s", &O::warn_after_s, above(0),
              "Without progress for so long (at most timeout_s): say which rank is at which "
              "collective."),
        field("check_collectives", &O::check_collectives,
              "Compare every collective across its group first; slow, finds hangs."));
  }
};

struct BackendOptions {
  std::string library;

  static constexpr auto fields() {
    using O = BackendOptions;
    return std::tuple(field("library", &O::library,
                            "Plug-in of a device that libtorch lacks, e.g. \"libtorch_npu.so\"."));
  }
};

enum class Crop { kCoverCenterCrop, kCoverRandomCrop, kStretch, kAspectBucket };
constexpr std::array<std::string_view, 4> option_names(Crop) {
  return {"cover_center_crop", "cover_random_crop", "stretch", "aspect_bucket"};
}
enum class TimestepSampling { kUniform, kStratified };
constexpr std::array<std::string_view, 2> option_names(TimestepSampling) {
  return {"uniform", "stratified"};
}
enum class Unconditional { kEmptyString, kZeros };
constexpr std::array<std::string_view, 2> option_names(Unconditional) {
  return {"empty_string", "zeros"};
}
enum class EncodeMode { kChunked, kWhole };
constexpr std::array<std::string_view, 2> option_names(EncodeMode) { return {"chunked", "whole"}; }

struct DiffusionOptions {
  int64_t frames = 49, height = 480, width = 720;
  double fps = 8;
  Crop crop = Crop::kCoverCenterCrop;
  TimestepSampling timesteps = TimestepSampling::kUniform;
  double text_dropout = 0, image_dropout = 0;
  Unconditional unconditional = Unconditional::kEmptyString;
  EncodeMode encode_mode = EncodeMode::kChunked;
  std::filesystem::path cache;
  int64_t sample_every = 0;
  std::vector<std::string> sample_prompts;

  static constexpr auto fields() {
    using O = DiffusionOptions;
    return std::tuple(
        field("frames", &O::frames, at_least(1), "Frames of a training clip."),
        field("height", &O::height, at_least(1), "Pixels."),
        field("width", &O::width, at_least(1), "Pixels."),
        field("fps", &O::fps, above(0), "Frames per second."),
        field("crop", &O::crop, "How a clip is brought to height and width."),
        field("timesteps", &O::timesteps, "uniform, or stratified over data ranks."),
        field("text_dropout", &O::text_dropout, between(0, 1), "Share of prompts left out."),
        field("image_dropout", &O::image_dropout, between(0, 1), "Share of images left out."),
        field("unconditional", &O::unconditional, "What stands for a prompt that is left out."),
        field("encode_mode", &O::encode_mode, "VAE: chunked (8 frames) or whole."),
        field("cache", &O::cache,
              "Folder of encoded latents and prompts; empty = encode on the fly."),
        field("sample_every", &O::sample_every, at_least(0),
              "Steps between sampled videos; 0 = never."),
        field("sample_prompts", &O::sample_prompts, "Prompts of the sampled videos."));
  }
};

/// Everything in a run file (docs/spec/run_file.md).
struct RunOptions {
  Task task = Task::kSft;
  std::filesystem::path output;
  int64_t seed = 42;
  DeviceKind device = DeviceKind::kCpu;
  int64_t threads = 0;
  ModelOptions model;
  DataOptions data;
  TrainOptions train;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  ParallelOptions parallel;
  RecomputeOptions recompute;
  SavingOptions checkpoint;
  LogOptions log;
  ProfileOptions profile;
  LaunchOptions launch;
  BackendOptions backend;
  DiffusionOptions diffusion;

  static constexpr auto fields() {
    using O = RunOptions;
    return std::tuple(
        field("task", &O::task, "sft (understanding) or diffusion (video generation)."),
        field("output", &O::output, "Folder of everything the run leaves behind; required."),
        field("seed", &O::seed, at_least(0), "Fixes everything random."),
        field("device", &O::device, "Where to compute."),
        field("threads", &O::threads, between(0, 4096),
              "Compute threads per process; 0 = cores / local processes."),
        field("model", &O::model, "Which model, and what of it is trained."),
        field("data", &O::data, "Samples, and how they become rows."),
        field("train", &O::train, "Length and batch of the run."),
        field("optimizer", &O::optimizer, "The update."),
        field("schedule", &O::schedule, "The learning rate over the run."),
        field("parallel", &O::parallel,
              "The mesh; the product must divide the number of processes, the rest is data "
              "parallel."),
        field("recompute", &O::recompute, "Memory for time in backward."),
        field("checkpoint", &O::checkpoint, "Saving and going on."),
        field("log", &O::log, "Console and TensorBoard."),
        field("profile", &O::profile, "Traces of some steps."),
        field("launch", &O::launch, "Worker processes and time-outs."),
        field("backend", &O::backend, "Devices from a plug-in."),
        field("diffusion", &O::diffusion, "task = \"diffusion\"."));
  }
};

/// Checks across fields; reports every problem.
void validate(const RunOptions& options, Problems& problems);

/// Settings that stand in the run file's contract but are not built yet, so that they are refused
/// and never ignored.
void check_supported(const RunOptions& options, Problems& problems);

/// The schema, instantiated in one place.
const TableSchema& run_schema();

struct ResolvedRun {
  RunOptions options;
  OptionOrigins origins;
};

/// Reads, validates and checks what is supported.
/// @throws UsageError with every problem, one a line.
ResolvedRun read_run_options(const OptionSources& sources);

/// The run options as references that use run_schema().
OptionsRef refer(RunOptions& options);
ConstOptionsRef refer(const RunOptions& options);

}  // namespace triptych

#include "train/run_options.h"

#include <algorithm>
#include <set>

#include "base/format.h"

namespace triptych {
namespace {

void check_windows(const std::vector<std::vector<int64_t>>& windows, std::string_view name,
                   Problems& problems) {
  for (size_t i = 0; i < windows.size(); ++i) {
    problems.check(windows[i].size() == 2 && windows[i][0] < windows[i][1], name, "[", i,
                   "] must be [first, end) with first < end, e.g. [11, 12]");
  }
}

void validate_data(const RunOptions& o, Problems& problems) {
  const auto sources = [&](const std::vector<DataSourceOptions>& list, std::string_view name) {
    for (size_t i = 0; i < list.size(); ++i) {
      problems.check(!list[i].path.empty(), name, "[", i, "].path is not set");
    }
  };
  sources(o.data.train, "data.train");
  sources(o.data.validation, "data.validation");
  problems.check(!o.data.train.empty(),
                 "data.train: no source of training samples; write [[data.train]] with its path");
  problems.check(o.data.video_min_frames <= o.data.video_max_frames, "data.video_min_frames (",
                 o.data.video_min_frames, ") must not be above data.video_max_frames (",
                 o.data.video_max_frames, ")");
  const auto pixels = [&](const std::optional<int64_t>& least, const std::optional<int64_t>& most,
                          std::string_view what) {
    problems.check(!least || !most || *least <= *most, "data.", what, "_min_pixels (",
                   least.value_or(0), ") must not be above data.", what, "_max_pixels (",
                   most.value_or(0), ")");
  };
  pixels(o.data.image_min_pixels, o.data.image_max_pixels, "image");
  pixels(o.data.video_min_pixels, o.data.video_max_pixels, "video");
}

void validate_parallel(const ParallelOptions& p, Problems& problems) {
  problems.check(p.virtual_chunks == 1 || p.pipeline > 1,
                 "parallel.virtual needs parallel.pipeline > 1, got ", p.pipeline);
  problems.check(
      p.balance_vision != BalanceVision::kData || p.vision_context != VisionContext::kDsp,
      "parallel.balance_vision = \"data\" shares whole pictures, "
      "parallel.vision_context = \"dsp\" cuts them into windows; choose one");
  const std::set<Axis> axes(p.order.begin(), p.order.end());
  problems.check(axes.size() == p.order.size(),
                 "parallel.order must name tensor, context, data and pipeline once each; those of "
                 "size 1 may be left out");
}

std::string not_yet(std::string_view setting, std::string_view what) {
  return fmt::format("{}: {} not in this build yet", setting, what);
}

}  // namespace

const TableSchema& run_schema() { return schema_of<RunOptions>(); }
OptionsRef refer(RunOptions& options) { return {run_schema(), &options}; }
ConstOptionsRef refer(const RunOptions& options) { return {run_schema(), &options}; }

void validate(const RunOptions& o, Problems& problems) {
  problems.check(!o.output.empty(), "output is not set; name the folder that the run writes into");
  problems.check(!o.model.path.empty() || !o.model.preset.empty(),
                 "model: neither path nor preset is set; name a hub folder or a size");
  problems.check(o.model.weights == InitialWeights::kRandom || !o.model.path.empty(),
                 "model.weights = \"load\" needs model.path; without a folder use model.weights = "
                 "\"random\"");
  problems.check(o.train.steps > 0 || o.train.epochs > 0,
                 "train: neither steps nor epochs is set; e.g. steps = 1000");
  problems.check(o.train.global_batch % o.train.micro_batch == 0, "train.global_batch (",
                 o.train.global_batch, ") must be a multiple of train.micro_batch (",
                 o.train.micro_batch, ")");
  problems.check(o.schedule.min_lr <= o.optimizer.lr, "schedule.min_lr (", o.schedule.min_lr,
                 ") must not be above optimizer.lr (", o.optimizer.lr, ")");
  problems.check(o.device != DeviceKind::kNpu || !o.backend.library.empty(),
                 "device = \"npu\" needs backend.library, e.g. \"libtorch_npu.so\"");
  problems.check(!o.parallel.balance_samples || o.train.micro_batch == 1 ||
                     o.train.loss_average != LossAverage::kMicroBatch,
                 "parallel.balance_samples puts other rows together in a micro-batch, which "
                 "train.loss_average = \"micro_batch\" with train.micro_batch = ",
                 o.train.micro_batch, " would notice; use micro_batch = 1 or another average");
  validate_data(o, problems);
  validate_parallel(o.parallel, problems);
  check_windows(o.profile.windows, "profile.windows", problems);
  check_windows(o.profile.memory.windows, "profile.memory.windows", problems);
}

void check_supported(const RunOptions& o, Problems& problems) {
  const auto refuse = [&](bool given, const std::string& setting, std::string_view what) {
    if (given) problems.add(not_yet(setting, what));
  };
  refuse(o.task == Task::kDiffusion, "task = \"diffusion\"", "video generation is");
  refuse(o.model.preset.starts_with("internvl"), "model.preset = " + toml_quoted(o.model.preset),
         "InternVL models are");
  refuse(o.model.preset.starts_with("cogvideox"), "model.preset = " + toml_quoted(o.model.preset),
         "CogVideoX models are");
  refuse(o.model.drop_path > 0, fmt::format("model.drop_path = {}", o.model.drop_path),
         "drop path is");
  refuse(o.model.lora && o.model.lora->fused_qkv, "model.lora.fused_qkv = true",
         "one adapter for q, k and v is");
  refuse(o.device == DeviceKind::kNpu, "device = \"npu\"", "this device is");
  for (const auto* list : {&o.data.train, &o.data.validation}) {
    for (const DataSourceOptions& source : *list) {
      refuse(source.format == SourceFormat::kInternVl || source.format == SourceFormat::kVideos,
             fmt::format("data: format = \"{}\"", name_of(source.format)), "this format is");
    }
  }
  refuse(o.data.video_sampling == VideoSamplingChoice::kInternVl,
         "data.video_sampling = \"internvl\"", "this rule is");
}

ResolvedRun read_run_options(const OptionSources& sources) {
  ResolvedRun run;
  run.origins = read_options(refer(run.options), sources);
  Problems problems;
  validate(run.options, problems);
  check_supported(run.options, problems);
  problems.throw_if_any();
  return run;
}

}  // namespace triptych

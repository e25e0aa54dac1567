#include "train/run_setup.h"

#include <algorithm>

#include "parallel/layout_rules.h"

namespace triptych {

c10::DeviceType device_type(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCuda:
      return c10::DeviceType::CUDA;
    case DeviceKind::kNpu:
      return c10::DeviceType::PrivateUse1;
    case DeviceKind::kCpu:
      break;
  }
  return c10::DeviceType::CPU;
}

at::Device device_of(const RunOptions& options, int64_t local_rank) {
  const auto type = device_type(options.device);
  if (type == c10::DeviceType::CPU) return at::kCPU;
  return {type, static_cast<c10::DeviceIndex>(local_rank)};
}

at::ScalarType compute_type(const RunOptions& options) {
  return options.model.precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
}

ProcessOptions process_options(const RunOptions& options) {
  return {.device = device_type(options.device),
          .threads = options.threads,
          .timeout_s = options.launch.timeout_s,
          .warn_after_s = std::min(options.launch.warn_after_s, options.launch.timeout_s),
          .check_collectives = options.launch.check_collectives};
}

MeshShape mesh_shape(const ParallelOptions& options, int64_t query_heads) {
  return {.tensor = options.tensor,
          .context = options.context,
          .ulysses = ulysses_size(options, query_heads),
          .pipeline = options.pipeline,
          .order = options.order};
}

ModelRequest model_request(const RunOptions& options) {
  const auto& model = options.model;
  ModelRequest request{
      .folder = model.path,
      .preset = model.preset,
      .random_weights = model.weights == InitialWeights::kRandom,
      .dtype = compute_type(options),
      .video_position_rule = std::string(name_of(model.video_position_rule)),
      .seed = static_cast<uint64_t>(options.seed),
      .freeze = model.freeze,
      .check_finite = model.check_finite,
  };
  if (model.lora) {
    request.lora = AdapterConfig{.rank = model.lora->rank,
                                 .alpha = model.lora->alpha,
                                 .dropout = model.lora->dropout,
                                 .targets = model.lora->targets};
  }
  return request;
}

AdamWSettings adamw_settings(const OptimizerOptions& options) {
  return {.beta1 = options.betas[0],
          .beta2 = options.betas[1],
          .eps = options.eps,
          .weight_decay = options.weight_decay,
          .decay_all = options.weight_decay_on == WeightDecayOn::kAll};
}

ShardingSettings sharding_settings(const RunOptions& options) {
  const auto& p = options.parallel;
  return {.zero = p.zero,
          .bucket_elements = p.bucket_elements,
          .overlap = p.overlap,
          .offload = options.optimizer.offload};
}

StepSettings step_settings(const RunOptions& options, const LoadedModel& loaded,
                           at::Device device) {
  return {.loss_average = options.train.loss_average,
          .clip_norm = options.optimizer.clip_norm,
          .seed = static_cast<uint64_t>(options.seed),
          .device = device,
          .dtype = compute_type(options),
          .recompute = make_recompute_plan(options.recompute, *loaded.family, loaded.model,
                                           loaded.cut, device)};
}

std::function<double(int64_t tokens)> length_cost(const RunOptions& options) {
  const auto family = read_family(model_request(options));
  const auto model = family->build(compute_type(options));
  const auto flop = [&](int64_t tokens) {
    return training_flop(model,
                         {.tokens = tokens, .mean_square_length = static_cast<double>(tokens)});
  };
  // a polynomial of degree 2 without a constant
  const double one = flop(1), two = flop(2), square = two / 2 - one, linear = one - square;
  return [linear, square](int64_t tokens) {
    const auto n = static_cast<double>(tokens);
    return n * (linear + square * n);
  };
}

Schedule make_schedule(const RunOptions& options, int64_t steps) {
  return {.kind = options.schedule.name,
          .peak = options.optimizer.lr,
          .min = options.schedule.min_lr,
          .warmup_steps = options.schedule.warmup_steps,
          .steps = steps};
}

}  // namespace triptych

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "base/options.h"
#include "parallel/axis.h"
#include "parallel/schedule.h"

namespace triptych {

constexpr std::array<std::string_view, 4> option_names(Axis) {
  return {"tensor", "context", "data", "pipeline"};
}

enum class ContextAlgorithm { kUlysses, kRing, kHybrid, kDsp };
constexpr std::array<std::string_view, 4> option_names(ContextAlgorithm) {
  return {"ulysses", "ring", "hybrid", "dsp"};
}

enum class ZeroGroup { kAll, kHost };
constexpr std::array<std::string_view, 2> option_names(ZeroGroup) { return {"all", "host"}; }

enum class Auto { kAuto };
constexpr std::array<std::string_view, 1> option_names(Auto) { return {"auto"}; }

enum class VisionContext { kAuto, kPictures, kDsp };
constexpr std::array<std::string_view, 3> option_names(VisionContext) {
  return {"auto", "pictures", "dsp"};
}

enum class BalanceVision { kNone, kContext, kData };
constexpr std::array<std::string_view, 3> option_names(BalanceVision) {
  return {"none", "context", "data"};
}

/// Layers per stage: found by the cost model, a list, or one such list per chunk.
using LayerSplit = std::variant<Auto, std::vector<int64_t>, std::vector<std::vector<int64_t>>>;

struct ParallelOptions {
  int64_t tensor = 1;
  bool sequence = false;
  int64_t pipeline = 1, virtual_chunks = 1, context = 1;
  ContextAlgorithm context_algorithm = ContextAlgorithm::kUlysses;
  int64_t ulysses_degree = 0;
  std::vector<Axis> order = {Axis::kTensor, Axis::kContext, Axis::kData, Axis::kPipeline};
  int64_t zero = 1;
  std::variant<ZeroGroup, int64_t> zero_group = ZeroGroup::kAll;
  int64_t zero_prefetch = 1;
  std::variant<Auto, bool> zero_reshard = Auto::kAuto;
  int64_t bucket_elements = 0;
  bool overlap = true;
  PipelineOrder schedule = PipelineOrder::k1F1B;
  int64_t micro_batch_group = 0;
  LayerSplit vision_layers = Auto::kAuto, text_layers = Auto::kAuto,
             transformer_layers = Auto::kAuto;
  VisionContext vision_context = VisionContext::kAuto;
  BalanceVision balance_vision = BalanceVision::kContext;
  bool balance_samples = false;

  static constexpr auto fields() {
    using O = ParallelOptions;
    return std::tuple(
        field("tensor", &O::tensor, at_least(1), "Ranks that split one weight matrix."),
        field("sequence", &O::sequence,
              "Sequence parallelism inside the tensor group; does nothing without one."),
        field("pipeline", &O::pipeline, at_least(1), "Stages the layers are cut into."),
        field("virtual", &O::virtual_chunks, at_least(1), "Model chunks per pipeline rank (VPP)."),
        field("context", &O::context, at_least(1), "Ranks that split one sequence."),
        field("context_algorithm", &O::context_algorithm, "How attention crosses context ranks."),
        field("ulysses_degree", &O::ulysses_degree, at_least(0),
              "For hybrid: ulysses (inner) x ring (outer) = context; 0 = as large as the heads "
              "allow."),
        field("order", &O::order, "Axes of the mesh, fastest varying (closest ranks) first."),
        field("zero", &O::zero, between(0, 3),
              "Sharded over data ranks: 0 nothing, 1 optimizer states, 2 + gradients, 3 + "
              "parameters."),
        field("zero_group", &O::zero_group, at_least(1),
              "Who shares the shards: all (data x context), host, or a count of ranks."),
        field("zero_prefetch", &O::zero_prefetch, at_least(0), "zero = 3: layers gathered ahead."),
        field("zero_reshard", &O::zero_reshard,
              "zero = 3, after forward: auto is yes, but not when pipeline > 1."),
        field("bucket_elements", &O::bucket_elements, at_least(0),
              "Gradient bucket; 0 = max(40 M, 1 M x ranks that share)."),
        field("overlap", &O::overlap, "Communication beside compute."),
        field("schedule", &O::schedule,
              "Order of a pipeline's work: 1f1b (interleaved when virtual > 1) or zb_h1."),
        field("micro_batch_group", &O::micro_batch_group, at_least(0),
              "virtual > 1: micro-batches that go through a chunk together; 0 = pipeline."),
        field("vision_layers", &O::vision_layers, at_least(0),
              "Vision layers per stage, e.g. [32, 0]; virtual > 1: one such list per chunk."),
        field("text_layers", &O::text_layers, at_least(0),
              "Text layers per stage; auto = balanced by the cost model."),
        field("transformer_layers", &O::transformer_layers, at_least(0),
              "Diffusion: transformer layers per stage."),
        field("vision_context", &O::vision_context,
              "context > 1, vision tower: whole pictures a rank, or dsp (windows; heads in full "
              "attention)."),
        field("balance_vision", &O::balance_vision,
              "Pictures shared out by cost over none, context, or data (x context) ranks."),
        field("balance_samples", &O::balance_samples,
              "Samples of a step shared out over data ranks by length; the batch stays the same."));
  }
};

enum class RecomputePolicy { kNone, kSelective, kFull };
constexpr std::array<std::string_view, 3> option_names(RecomputePolicy) {
  return {"none", "selective", "full"};
}

enum class RecomputeMethod { kBlock, kUniform };
constexpr std::array<std::string_view, 2> option_names(RecomputeMethod) {
  return {"block", "uniform"};
}

/// One number for every stage, or one a stage.
using LayerCount = std::variant<int64_t, std::vector<int64_t>>;

/// Of one part of the model; what is not set is that of [recompute].
struct RecomputePartOptions {
  std::optional<RecomputePolicy> policy;
  std::optional<LayerCount> layers;
  std::optional<RecomputeMethod> method;
  std::optional<std::vector<std::string>> modules;
  std::optional<bool> keep_attention, offload;

  static constexpr auto fields() {
    using O = RecomputePartOptions;
    return std::tuple(
        field("policy", &O::policy, "As in [recompute]; not set: its value."),
        field("layers", &O::layers, at_least(-1), "As in [recompute]; not set: its value."),
        field("method", &O::method, "As in [recompute]; not set: its value."),
        field("modules", &O::modules, "As in [recompute]; not set: its value."),
        field("keep_attention", &O::keep_attention, "As in [recompute]; not set: its value."),
        field("offload", &O::offload, "As in [recompute]; not set: its value."));
  }
};

struct RecomputeOptions {
  RecomputePolicy policy = RecomputePolicy::kNone;
  LayerCount layers = int64_t{-1};
  RecomputeMethod method = RecomputeMethod::kBlock;
  std::vector<std::string> modules = {"mlp_act", "norm"};
  bool keep_attention = false, offload = false;
  int64_t offload_min_bytes = int64_t{1} << 20;
  std::optional<RecomputePartOptions> vision, text;

  static constexpr auto fields() {
    using O = RecomputeOptions;
    return std::tuple(
        field("policy", &O::policy, "What backward computes again instead of keeping it."),
        field("layers", &O::layers, at_least(-1),
              "full: how many layers per stage (and chunk); -1 = all; or a list, one number a "
              "stage."),
        field(
            "method", &O::method,
            "full: block (the first `layers`) or uniform (groups of `layers`, their input kept)."),
        field("modules", &O::modules,
              "selective: mlp_act, norm, qkv_rope, attention, mlp, or globs on layer names."),
        field("keep_attention", &O::keep_attention, "full, but attention outputs are kept."),
        field("offload", &O::offload, "Activations kept for backward go to host memory."),
        field("offload_min_bytes", &O::offload_min_bytes, at_least(1),
              "offload: smaller tensors stay on the device."),
        field("vision", &O::vision, "The same keys for the vision tower."),
        field("text", &O::text, "The same keys for the text model."));
  }

  /// The settings of one part: its own, else those of [recompute].
  RecomputeOptions of_part(const std::optional<RecomputePartOptions>& part) const {
    RecomputeOptions result = *this;
    result.vision.reset();
    result.text.reset();
    if (!part) return result;
    result.policy = part->policy.value_or(policy);
    result.layers = part->layers.value_or(layers);
    result.method = part->method.value_or(method);
    result.modules = part->modules.value_or(modules);
    result.keep_attention = part->keep_attention.value_or(keep_attention);
    result.offload = part->offload.value_or(offload);
    return result;
  }
};

}  // namespace triptych

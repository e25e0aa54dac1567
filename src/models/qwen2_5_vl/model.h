#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/qwen2_5_vl/options.h"
#include "models/qwen2_5_vl/positions.h"
#include "nn/model.h"
#include "parallel/model_groups.h"

namespace triptych::qwen2_5_vl {

/// Builds the model on the meta device: layers in the order vision tower, merger, embedding,
/// decoder layers, head. Any size costs no memory.
/// @param dtype   of every parameter: kFloat, or kBFloat16 for bf16 compute.
/// @param groups  what the layers exchange activations over; must outlive the model.
Model build(const Options& options, at::ScalarType dtype, const ModelGroups& groups = {});

/// One picture or video as the data pipeline hands it over; borrowed.
struct MediumView {
  MediaGrid grid;
  std::span<const float> rows;  ///< [patches, 1176], or empty when only positions are wanted
};

/// One sample; borrowed.
struct SampleView {
  uint64_t index = 0;
  std::span<const int32_t> tokens;
  std::span<const int32_t> labels;  ///< not shifted; empty: no loss is computed for it
  std::vector<MediumView> media;
  double loss_weight = 1;  ///< weight of each of its label tokens
};

struct FlowSettings {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  bool all_logits = false;   ///< logits of every token
  bool last_logits = false;  ///< logits of the last token of every sample: generation
  bool pixels = true;        ///< false: the first layer is another rank's
  bool vision = true;        ///< false: all vision layers are
  /// Keys of adapter dropout; nothing: no dropout.
  struct DropoutKey {
    uint64_t seed = 0, step = 0;
  };
  std::optional<DropoutKey> dropout;
  ModelGroups groups;  ///< as the model was built with
};

/// Turns samples into the flow that the first layer takes: pixels, rotary tables, segment bounds,
/// label rows. Samples are joined without padding and never see each other. Where tensor ranks
/// split the tokens, a few tokens and cells at the end, in a segment of their own, make their
/// number a multiple of the ranks; nothing is learned from them.
Flow make_flow(const Options& options, std::span<const SampleView> samples,
               const FlowSettings& settings);

/// The flow of one more token behind those that a cache holds. A placeholder that a model generates
/// is a word like any other, as in the reference: no picture stands for it.
Flow next_token_flow(const Options& options, int32_t token, int64_t position,
                     const FlowSettings& settings);

/// cos and sin of the text positions [T, K], each half of K holding the same angles. Computed in
/// fp32, then cast.
std::pair<at::Tensor, at::Tensor> text_rotary(const TextOptions& options,
                                              const TextPositions& positions,
                                              const FlowSettings& settings);

/// The number of labels that a sample trains: those of tokens 1.. that are not ignored.
int64_t count_labels(std::span<const int32_t> labels);

/// The hub's key of a stored name: both the published names and the long ones that transformers
/// uses in memory since 4.52 (`model.language_model.`, `model.visual.`) are read.
std::string canonical_name(std::string_view stored);

/// The module path that peft uses for a parameter's or module's canonical name.
std::string module_path(std::string_view canonical);

}  // namespace triptych::qwen2_5_vl

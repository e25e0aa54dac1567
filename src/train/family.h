#pragma once

// What the trainer, evaluation and generation need from a model family, and nothing more. One small
// adapter per family implements it; the family's own folder knows no trainer.

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "data/sample.h"
#include "nn/model.h"
#include "parallel/model_groups.h"

namespace triptych {

/// How a micro-batch becomes a flow.
struct FlowRequest {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  bool with_labels = true;
  bool all_logits = false;
  bool last_logits = false;
  bool dropout = false;  ///< adapter dropout, keyed by seed and step
  uint64_t seed = 0, step = 0;
  /// For a rank whose layers do not read it: pixels are the first layer's, other facts about media
  /// those of all vision layers.
  bool with_pixels = true, with_vision = true;
  ModelGroups groups;  ///< as the model was built with
};

/// Key/value caches and positions of one generation request.
struct DecodeState {
  at::Tensor keys, values;  ///< [layers, capacity, key/value heads, head dim]
  int64_t length = 0;       ///< tokens held
  int64_t delta = 0;        ///< position of a token = its index + delta
};

class Family {
 public:
  virtual ~Family() = default;

  virtual std::string name() const = 0;
  /// @param groups  what the layers exchange activations over; must outlive the model.
  virtual Model build(at::ScalarType dtype, const ModelGroups& groups = {}) const = 0;

  /// Query heads of a layer that attends along the whole sequence: what Ulysses shares out.
  virtual int64_t query_heads() const = 0;

  /// Rules of docs/spec/parallelism.md 1.5 that depend on the model's sizes.
  virtual void validate_layout(const ParallelOptions& options, Problems& problems) const = 0;

  /// What a layout that is allowed costs beyond its share of the work; empty: nothing.
  virtual std::string layout_advice(const ParallelOptions& /*options*/) const { return ""; }

  /// @param weights  loss weight of each sample's label tokens, in the order of rows and samples.
  virtual Flow make_flow(const MicroBatch& batch, std::span<const double> weights,
                         const FlowRequest& request) const = 0;

  /// Names of flow fields that the trainer reads.
  virtual std::string_view loss_field() const = 0;
  virtual std::string_view token_losses_field() const = 0;
  virtual std::string_view logits_field() const = 0;

  /// Fields that carry gradients from layer to layer: what a pipeline sends from stage to stage.
  virtual std::vector<std::string> travelling_fields() const = 0;

  /// True for layers that `recompute.policy = "full"` is about: the repeated blocks.
  virtual bool is_block(const Layer& layer) const = 0;

  /// Hub key of a stored tensor name, and the module path that adapters use.
  virtual std::string canonical_name(std::string_view stored) const = 0;
  virtual std::string module_path(std::string_view canonical) const = 0;

  /// config.json as it should stand beside saved weights, when there is no folder to copy it from.
  virtual Json config() const = 0;

  /// Sizes for `mfu`: model flop of one forward pass, by layer costs.
  virtual FlowSize flow_size(const MicroBatch& batch) const = 0;

  /// The same for a sequence of this length with as much text as pictures: what an automatic cut
  /// into pipeline stages weighs layers by.
  virtual FlowSize typical_size(int64_t tokens) const = 0;

  /// A packed row of this many tokens with half of it pictures, which have no pixels: what a plan
  /// assumes of the data where it is not told more.
  virtual Row typical_row(int64_t /*tokens*/) const {
    throw UsageError(name() + ": this model says of no data what is typical");
  }

  // generation of text; a family without it refuses
  virtual DecodeState start_decoding(int64_t /*capacity*/, const FlowRequest& /*request*/) const {
    refuse_generation();
  }
  /// Flow of the prompt; fills `state.delta`.
  virtual Flow prefill_flow(const Sample& /*prompt*/, DecodeState& /*state*/,
                            const FlowRequest& /*request*/) const {
    refuse_generation();
  }
  /// Flow of one new token.
  virtual Flow decode_flow(int32_t /*token*/, const DecodeState& /*state*/,
                           const FlowRequest& /*request*/) const {
    refuse_generation();
  }

 private:
  [[noreturn]] void refuse_generation() const {
    throw UsageError(name() + ": this model generates no text");
  }
};

/// The family of a config.json, or, when `config` is null, of a preset.
/// @param origin   names the file in messages.
/// @param preset   a named size; must agree with the config when both are given; may be empty.
/// @param video_position_rule  Qwen2.5-VL: "max_hw" or "max_all".
std::unique_ptr<Family> make_family(const Json& config, std::string_view origin,
                                    std::string_view preset, std::string_view video_position_rule);

}  // namespace triptych

#pragma once

// A model with its weights: from a hub folder, from a checkpoint, or random; with parts frozen and
// adapters put on, as the run asks. The way back to files: save_model.h.

#include <c10/core/Device.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/adapter.h"
#include "checkpoint/hub_folder.h"
#include "nn/model.h"
#include "parallel/group.h"
#include "parallel/stage_cut.h"
#include "train/family.h"

namespace triptych {

struct LoadedModel;

struct ModelRequest {
  std::filesystem::path folder;  ///< hub folder; may be empty with a preset and random weights
  std::string preset;
  bool random_weights = false;
  at::ScalarType dtype = at::kFloat;  ///< of compute: kFloat or kBFloat16
  at::Device device = at::kCPU;
  std::string video_position_rule = "max_hw";
  uint64_t seed = 0;
  ModelGroups groups;                 ///< must outlive the model
  std::vector<std::string> freeze;    ///< parts, or glob patterns on hub names
  std::optional<AdapterConfig> lora;  ///< fresh adapters
  std::filesystem::path adapter;      ///< adapters from a peft folder
  bool check_finite = false;          ///< refuse weights that hold NaN or infinity
  /// Called when the layers are made, frozen and adapted, before any weight is read: takes away
  /// what is not to be held here (place_on_stage).
  std::function<void(LoadedModel&)> place;
  bool meta_only = false;  ///< build and check against the files, but load nothing
};

/// Everything that a run knows about its model.
struct LoadedModel {
  std::filesystem::path folder;
  at::Device device = at::kCPU;
  Json config;  ///< as read; unknown keys and all
  std::unique_ptr<Family> family;
  ModelGroups groups;
  Model model;
  StageCut cut;  ///< of a pipeline; one stage: all layers
  /// The ranks that hold the model's stages; null: this one holds all.
  Group* pipeline = nullptr;
  std::optional<AdapterConfig> lora;
  std::optional<HubFolder> source;  ///< the folder's weights; not for random ones
  HubLayout layout;                 ///< how weights are saved: stored names, files, dtypes

  /// The parameter behind a stored name; null for a stored name that the model has none for.
  const Parameter* find(std::string_view stored) const;

  /// Parameters that are trained, in the order of the layers.
  ParameterList trained() const;
  /// All elements, and those trained.
  int64_t num_parameters() const;
  int64_t num_trained() const;
};

/// The family and sizes that a request names; reads config.json at most.
/// @throws Error, UsageError, DataError
std::unique_ptr<Family> read_family(const ModelRequest& request);

/// What to compute in: fp32 when the folder's weights are fp32, else bf16.
at::ScalarType compute_type_of(const std::filesystem::path& folder);

/// @throws Error, UsageError, DataError  before any weight is read where the fault can be known
/// then.
LoadedModel load_model(const ModelRequest& request);
/// The same for a family that is known already.
LoadedModel load_model(const ModelRequest& request, std::unique_ptr<Family> family);

/// Replaces the weights (of a model just built) by those of another folder with the same names:
/// a checkpoint's `weights/`.
void load_weights(LoadedModel& loaded, const std::filesystem::path& weights);

/// What this rank holds, or of sharded parameters would hold; then all ranks ask alike.
at::Tensor held_value(const LoadedModel& loaded, const Parameter& parameter);
/// Replaces what this rank holds of a parameter.
/// @param value  of its shape on this rank
void set_value(const LoadedModel& loaded, Parameter& parameter, const at::Tensor& value);

/// Adds every adapter into its base weight (W += scale * B A, in fp32, rounded once) and removes
/// it.
void merge_adapters(LoadedModel& loaded);

}  // namespace triptych

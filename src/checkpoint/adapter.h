#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "checkpoint/adapter_config.h"
#include "checkpoint/hub_folder.h"

namespace triptych {

inline constexpr char kAdapterConfigFile[] = "adapter_config.json";
inline constexpr char kAdapterWeightsFile[] = "adapter_model.safetensors";
/// What peft puts before every module path.
inline constexpr std::string_view kAdapterPrefix = "base_model.model.";

/// A peft folder: adapter_config.json and adapter_model.safetensors.
struct Adapter {
  AdapterConfig config;
  /// Without the prefix: "model.language_model.layers.0.self_attn.q_proj.lora_A.weight" [rank, in],
  /// "....lora_B.weight" [out, rank], and "<path>.weight" of modules trained in full; module paths
  /// as stored, long or short form.
  std::map<std::string, at::Tensor> tensors;
};

/// @throws DataError  a missing file, a pickle, a configuration that is not supported, tensors that
///   are no adapter's, an A or B without the other or of another rank than the configuration says.
Adapter load_adapter(const std::filesystem::path& folder);

/// Tensors in the order of their names, as peft writes them. Complete or absent; replaces a folder.
void save_adapter(const std::filesystem::path& folder, const Adapter& adapter);

/// How the tensors lie in adapter_model.safetensors (names with the prefix), for a
/// CheckpointWriter.
HubLayout adapter_layout(const std::map<std::string, at::Tensor>& tensors);

}  // namespace triptych

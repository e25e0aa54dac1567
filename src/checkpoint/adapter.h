#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace triptych {

/// Which modules an adapter sits on, with peft's meaning: a list matches a module path that equals
/// an entry or ends in "." + entry; a string must match the whole path as a regular expression.
using ModulePattern = std::variant<std::vector<std::string>, std::string>;

/// `adapter_config.json`, as far as it concerns us. Everything else peft writes is written as peft
/// writes it when unused.
struct AdapterConfig {
  std::string base_model;  ///< base_model_name_or_path
  int64_t rank = 8;
  double alpha = 8;
  double dropout = 0;
  ModulePattern targets;
  std::optional<ModulePattern> excluded;
  std::vector<std::string> modules_to_save;
  std::vector<int64_t> layers_to_transform;  ///< empty = all
  std::vector<std::string> layers_pattern;
  std::map<std::string, int64_t>
      rank_pattern;  ///< module path suffix (a regular expression) -> rank
  std::map<std::string, double> alpha_pattern;
  bool rslora = false;  ///< scale alpha / sqrt(rank) instead of alpha / rank
  std::string task_type = "CAUSAL_LM";

  /// Of the adapter on `module`.
  int64_t rank_of(std::string_view module) const;
  double scale_of(std::string_view module) const;
  /// Whether a module of this path gets an adapter (targets, exclusion, layers).
  bool adapts(std::string_view module) const;
};

/// @throws DataError for what would change the numbers and is not built: use_dora, bias other than
///   "none", another peft_type, megatron, replicated layers, ...; each named with its value.
AdapterConfig parse_adapter_config(std::string_view text, std::string_view origin);
std::string dump_adapter_config(const AdapterConfig& config);

/// A peft folder: adapter_config.json and adapter_model.safetensors.
struct Adapter {
  AdapterConfig config;
  /// Without the prefix "base_model.model.":
  /// "model.language_model.layers.0.self_attn.q_proj.lora_A.weight" [rank, in], "....lora_B.weight"
  /// [out, rank]; module paths as stored, long or short form.
  std::map<std::string, at::Tensor> tensors;
};

Adapter load_adapter(const std::filesystem::path& folder);
/// Tensors in the order of their names, as peft writes them.
void save_adapter(const std::filesystem::path& folder, const Adapter& adapter);

}  // namespace triptych

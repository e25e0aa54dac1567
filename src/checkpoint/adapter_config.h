#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace triptych {

/// Which modules an adapter sits on, with peft's meaning: a list matches a module path that equals
/// an entry or ends in "." + entry; a string must match the whole path as a regular expression.
using ModulePattern = std::variant<std::vector<std::string>, std::string>;

/// @throws DataError for a wrong regular expression.
bool matches_module(const ModulePattern& pattern, std::string_view module);

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
  std::vector<int64_t> layers_to_transform;  ///< empty = all; only with a list of targets
  std::vector<std::string> layers_pattern;   ///< name before the layer's number; empty = any
  /// Regular expression on the end of a module's path -> rank or alpha; the first that matches.
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  bool rslora = false;  ///< scale alpha / sqrt(rank) instead of alpha / rank
  std::string task_type = "CAUSAL_LM";

  /// Of the adapter on `module`.
  int64_t rank_of(std::string_view module) const;
  double scale_of(std::string_view module) const;
  /// Whether a module of this path gets an adapter (targets, exclusion, layers).
  bool adapts(std::string_view module) const;
};

/// Reads a configuration of peft 0.5 to 0.21.
/// @throws DataError for what would change the numbers and is not built: use_dora, bias other than
///   "none", another peft_type, replicated layers, initial values that change the base weights,
///   ...; each named with its value.
AdapterConfig parse_adapter_config(std::string_view text, std::string_view origin);

/// Every key that peft 0.21 writes, null where unused, keys sorted, as peft does.
std::string dump_adapter_config(const AdapterConfig& config);

}  // namespace triptych

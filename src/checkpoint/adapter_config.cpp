#include "checkpoint/adapter_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "checkpoint/regex_match.h"

namespace triptych {
namespace {

constexpr std::string_view kPlace = "adapter_config.json";

bool ends_in_name(std::string_view module, std::string_view name) {
  return module == name || (module.size() > name.size() && module.ends_with(name) &&
                            module[module.size() - name.size() - 1] == '.');
}

/// The number of the layer that `module` lies in: the first number after a name of the pattern, or
/// after any name when there is none; nothing outside a list of layers.
std::optional<int64_t> layer_of(std::string_view module, const std::vector<std::string>& names) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    parts.push_back(module.substr(begin, end - begin));
    begin = end + 1;
  }
  // peft wants something before an unnamed list ("a.layers.0."), and a module behind the number.
  for (size_t i = names.empty() ? 2 : 1; i + 1 < parts.size(); ++i) {
    const bool number =
        !parts[i].empty() && parts[i].size() < 10 &&
        std::all_of(
            parts[i].begin(), parts[i].end(), [](unsigned char c) { return std::isdigit(c) != 0; });
    const bool named =
        names.empty() || std::any_of(names.begin(), names.end(), [&](const auto& name) {
          return regex_full_match(name, parts[i - 1], kPlace);
        });
    if (number && named) return std::stoll(std::string(parts[i]));
  }
  return std::nullopt;
}

template <class Value>
Value of_pattern(const std::map<std::string, Value>& patterns, std::string_view module,
                 Value otherwise) {
  for (const auto& [pattern, value] : patterns) {
    if (regex_full_match("(?:.*\\.)?(?:" + pattern + ")", module, kPlace)) return value;
  }
  return otherwise;
}

/// Typed access to one member; absent and null both mean "not given".
class Members {
 public:
  Members(const Json& object, std::string_view origin) : object_(object), origin_(origin) {
    require<DataError>(object.is_object(), origin, ": an object is expected");
  }

  const Json* find(const char* key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  template <class Value>
  Value get(const char* key, Value otherwise) const {
    const Json* value = find(key);
    return value == nullptr ? otherwise : convert<Value>(*value, key);
  }

  /// A list, or one value that stands for a list of one.
  template <class Value>
  std::vector<Value> list(const char* key) const {
    std::vector<Value> values;
    if (const Json* value = find(key)) {
      if (!value->is_array()) return {convert<Value>(*value, key)};
      for (const auto& item : *value) values.push_back(convert<Value>(item, key));
    }
    return values;
  }

  template <class Value>
  std::map<std::string, Value> map(const char* key) const {
    std::map<std::string, Value> values;
    if (const Json* value = find(key)) {
      require<DataError>(value->is_object(), origin_, ": '", key, "' must be an object");
      for (const auto& [name, item] : value->items()) values[name] = convert<Value>(item, key);
    }
    return values;
  }

  std::optional<ModulePattern> pattern(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (value->is_string()) return value->get<std::string>();
    return list<std::string>(key);
  }

 private:
  template <class Value>
  Value convert(const Json& value, const char* key) const {
    bool fits = false;
    if constexpr (std::is_same_v<Value, bool>) {
      fits = value.is_boolean();
    } else if constexpr (std::is_same_v<Value, std::string>) {
      fits = value.is_string();
    } else if constexpr (std::is_same_v<Value, int64_t>) {
      fits = value.is_number_integer();
    } else {
      fits = value.is_number();
    }
    require<DataError>(fits, origin_, ": '", key, "' holds ", value.dump(),
                       ", which is not of the type that peft gives it");
    return value.get<Value>();
  }

  const Json& object_;
  std::string_view origin_;
};

bool unused(const Json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

/// Keys that change the numbers when used; none is built here.
constexpr std::array<const char*, 17> kRefused = {"use_dora",
                                                  "use_qalora",
                                                  "lora_bias",
                                                  "fan_in_fan_out",
                                                  "layer_replication",
                                                  "megatron_config",
                                                  "target_parameters",
                                                  "trainable_token_indices",
                                                  "alora_invocation_tokens",
                                                  "arrow_config",
                                                  "kasa_config",
                                                  "monteclora_config",
                                                  "velora_config",
                                                  "use_bdlora",
                                                  "corda_config",
                                                  "lora_ga_config",
                                                  "loftq_config"};

/// Keys that are read below, or that do not matter to the values.
constexpr std::array<const char*, 27> kKnown = {"peft_type",
                                                "task_type",
                                                "base_model_name_or_path",
                                                "r",
                                                "lora_alpha",
                                                "lora_dropout",
                                                "target_modules",
                                                "exclude_modules",
                                                "modules_to_save",
                                                "bias",
                                                "use_rslora",
                                                "rank_pattern",
                                                "alpha_pattern",
                                                "layers_to_transform",
                                                "layers_pattern",
                                                "init_lora_weights",
                                                "inference_mode",
                                                "auto_mapping",
                                                "revision",
                                                "peft_version",
                                                "qalora_group_size",
                                                "megatron_core",
                                                "eva_config",
                                                "ensure_weight_tying",
                                                "runtime_config",
                                                "qalora_config",
                                                "enable_lora"};

template <class Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_supported(const Json& json, const Members& members, std::string_view origin) {
  const auto type = members.get<std::string>("peft_type", "LORA");
  require<DataError>(type == "LORA", origin, ": 'peft_type' is \"", type,
                     "\"; only LORA adapters can be read");
  const auto bias = members.get<std::string>("bias", "none");
  require<DataError>(bias == "none", origin, ": 'bias' is \"", bias,
                     "\"; adapters that train biases are not supported");
  for (const char* key : kRefused) {
    const Json* value = members.find(key);
    require<DataError>(value == nullptr || unused(*value), origin, ": '", key, "' is ",
                       value == nullptr ? "" : value->dump(), ", which is not supported");
  }
  if (const Json* init = members.find("init_lora_weights"); init != nullptr && init->is_string()) {
    const auto& name = init->get_ref<const std::string&>();
    require<DataError>(name == "gaussian" || name == "eva" || name == "orthogonal", origin,
                       ": 'init_lora_weights' is \"", name,
                       "\", which changes the base weights; convert the adapter to plain LoRA");
  }
  for (const auto& [key, value] : json.items()) {
    if (!contains(kKnown, key) && !contains(kRefused, key) && !unused(value)) {
      log_warning("{}: '{}' is not known and ignored", origin, key);
    }
  }
}

Json number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

Json json_of(const ModulePattern& pattern) {
  return std::visit([](const auto& value) { return Json(value); }, pattern);
}

template <class List>
Json null_when_empty(const List& list) {
  return list.empty() ? Json() : Json(list);
}

}  // namespace

bool matches_module(const ModulePattern& pattern, std::string_view module) {
  if (const auto* regex = std::get_if<std::string>(&pattern)) {
    return regex_full_match(*regex, module, kPlace);
  }
  const auto& names = std::get<std::vector<std::string>>(pattern);
  return std::any_of(names.begin(), names.end(),
                     [&](const auto& name) { return ends_in_name(module, name); });
}

int64_t AdapterConfig::rank_of(std::string_view module) const {
  return of_pattern(rank_pattern, module, rank);
}

double AdapterConfig::scale_of(std::string_view module) const {
  const auto r = static_cast<double>(rank_of(module));
  return of_pattern(alpha_pattern, module, alpha) / (rslora ? std::sqrt(r) : r);
}

bool AdapterConfig::adapts(std::string_view module) const {
  if (excluded && matches_module(*excluded, module)) return false;
  for (const auto& saved : modules_to_save) {  // the module itself or one inside it
    if (regex_full_match("(?:|.*\\.)" + saved + "(?:|\\..*)", module, kPlace)) return false;
  }
  if (!matches_module(targets, module)) return false;
  if (layers_to_transform.empty() || std::holds_alternative<std::string>(targets)) return true;
  const auto layer = layer_of(module, layers_pattern);
  return layer && std::count(layers_to_transform.begin(), layers_to_transform.end(), *layer) > 0;
}

AdapterConfig parse_adapter_config(std::string_view text, std::string_view origin) {
  const Json json = parse_json(text, origin);
  const Members members(json, origin);
  check_supported(json, members, origin);
  AdapterConfig config;
  config.base_model = members.get<std::string>("base_model_name_or_path", "");
  config.rank = members.get<int64_t>("r", config.rank);
  config.alpha = members.get<double>("lora_alpha", config.alpha);
  config.dropout = members.get<double>("lora_dropout", config.dropout);
  config.rslora = members.get<bool>("use_rslora", false);
  config.task_type = members.get<std::string>("task_type", "");
  config.modules_to_save = members.list<std::string>("modules_to_save");
  config.layers_to_transform = members.list<int64_t>("layers_to_transform");
  config.layers_pattern = members.list<std::string>("layers_pattern");
  config.rank_pattern = members.map<int64_t>("rank_pattern");
  config.alpha_pattern = members.map<double>("alpha_pattern");
  config.excluded = members.pattern("exclude_modules");
  const auto targets = members.pattern("target_modules");
  require<DataError>(targets.has_value(), origin, ": 'target_modules' is missing");
  config.targets = *targets;
  require<DataError>(config.rank >= 1, origin, ": 'r' is ", config.rank,
                     ", at least 1 is expected");
  for (const auto& [pattern, rank] : config.rank_pattern) {
    require<DataError>(rank >= 1, origin, ": 'rank_pattern' gives \"", pattern, "\" the rank ",
                       rank, ", at least 1 is expected");
  }
  return config;
}

std::string dump_adapter_config(const AdapterConfig& config) {
  const Json none;
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  Json json;
  json["alora_invocation_tokens"] = none;
  json["alpha_pattern"] = Json::object();
  for (const auto& [key, value] : config.alpha_pattern) json["alpha_pattern"][key] = number(value);
  json["arrow_config"] = none;
  json["auto_mapping"] = none;
  json["base_model_name_or_path"] = text(config.base_model);
  json["bias"] = "none";
  json["corda_config"] = none;
  json["ensure_weight_tying"] = false;
  json["eva_config"] = none;
  json["exclude_modules"] = config.excluded ? json_of(*config.excluded) : none;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["kasa_config"] = none;
  json["layer_replication"] = none;
  json["layers_pattern"] = null_when_empty(config.layers_pattern);
  json["layers_to_transform"] = null_when_empty(config.layers_to_transform);
  json["loftq_config"] = Json::object();
  json["lora_alpha"] = number(config.alpha);
  json["lora_bias"] = false;
  json["lora_dropout"] = config.dropout;
  json["lora_ga_config"] = none;
  json["megatron_config"] = none;
  json["megatron_core"] = "megatron.core";
  json["modules_to_save"] = null_when_empty(config.modules_to_save);
  json["monteclora_config"] = none;
  json["peft_type"] = "LORA";
  json["peft_version"] = "0.21.2";
  json["qalora_group_size"] = 16;
  json["r"] = config.rank;
  json["rank_pattern"] = Json(config.rank_pattern);
  if (config.rank_pattern.empty()) json["rank_pattern"] = Json::object();
  json["revision"] = none;
  json["target_modules"] = json_of(config.targets);
  json["target_parameters"] = none;
  json["task_type"] = text(config.task_type);
  json["trainable_token_indices"] = none;
  json["use_bdlora"] = none;
  json["use_dora"] = false;
  json["use_qalora"] = false;
  json["use_rslora"] = config.rslora;
  json["velora_config"] = none;
  return dump_json(json, 2);
}

}  // namespace triptych

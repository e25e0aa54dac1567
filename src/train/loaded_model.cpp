#include "train/loaded_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/glob.h"
#include "base/log.h"
#include "base/suggest.h"
#include "parallel/parameter_shards.h"

namespace triptych {

namespace {

using NameMap = std::unordered_map<std::string, ParameterPtr>;

NameMap by_name(const ParameterList& parameters) {
  NameMap map;
  for (const auto& parameter : parameters) map.emplace(parameter->name, parameter);
  return map;
}

/// Stored names that a folder may hold although the model has no such parameter: a tied head's
/// copy, and tables that old exporters wrote.
bool may_be_ignored(std::string_view canonical, const NameMap& parameters) {
  return canonical.ends_with("inv_freq") ||
         (canonical == "lm_head.weight" && !parameters.contains("lm_head.weight"));
}

void check_against_folder(const LoadedModel& loaded, const HubFolder& folder) {
  const auto parameters = by_name(loaded.model.parameters);
  std::unordered_map<std::string, std::string> stored_name;
  for (const auto& name : folder.names())
    stored_name.emplace(loaded.family->canonical_name(name), name);
  std::vector<ExpectedTensor> expected;
  for (const auto& parameter : loaded.model.parameters) {
    const auto it = stored_name.find(parameter->name);
    expected.push_back(
        {it == stored_name.end() ? parameter->name : it->second, parameter->full_shape});
  }
  for (const auto& tensor : expected) {
    if (!folder.contains(tensor.name)) continue;
    const auto type = folder.at(tensor.name).type;
    require<DataError>(type == StoredType::kF32 || type == StoredType::kBF16 ||
                           type == StoredType::kF16 || type == StoredType::kF64,
                       folder.path().string(), ": tensor '", tensor.name, "' is ",
                       stored_type_name(type),
                       "; weights are read as F32, BF16, F16 or F64: quantized models are not "
                       "supported");
  }
  auto comparison = compare_tensors(expected, folder);
  std::erase_if(comparison.unexpected, [&](const auto& name) {
    return may_be_ignored(loaded.family->canonical_name(name), parameters);
  });
  require(comparison.ok(), folder.path().string(), ": the weights are not those of this model\n",
          comparison.report());
}

/// The folder's layout without the tensors that are never written back.
HubLayout writable_layout(const LoadedModel& loaded, const HubFolder& folder) {
  const auto parameters = by_name(loaded.model.parameters);
  std::vector<TensorSpec> kept;
  bool all = true;
  for (const auto& name : folder.names()) {
    const auto& tensor = folder.at(name);
    if (may_be_ignored(loaded.family->canonical_name(name), parameters)) {
      all = false;
    } else {
      kept.push_back({name, scalar_type_of(tensor.type), tensor.shape});
    }
  }
  return all ? folder.layout() : make_layout(std::move(kept));
}

/// What this rank holds of a stored tensor, into `destination` of the held shape.
void read_part_into(const HubFolder& folder, const std::string& stored, const Parameter& parameter,
                    const at::Tensor& destination) {
  if (parameter.held.empty()) return folder.read_into(stored, destination);
  const int64_t dim = parameter.placement.split->dim;
  int64_t at = 0;
  for (const auto& range : parameter.held) {
    folder.read_into(stored, destination.narrow(dim, at, range.length),
                     TensorSlice{.dim = dim, .start = range.start, .length = range.length});
    at += range.length;
  }
}

at::Tensor read_part(const HubFolder& folder, const std::string& stored, const Parameter& parameter,
                     at::Device device) {
  const auto dtype = parameter.value.scalar_type();
  if (parameter.held.empty()) return folder.read(stored, dtype).to(device);
  const auto part = at::empty(parameter.value.sizes(), dtype);
  read_part_into(folder, stored, parameter, part);
  return part.to(device);
}

void check_tied_copy(const LoadedModel& loaded, const HubFolder& folder) {
  for (const auto& name : folder.names()) {
    if (loaded.family->canonical_name(name) != "lm_head.weight") continue;
    if (loaded.find(name) != nullptr) return;
    const auto& embedding = loaded.model.parameter("model.embed_tokens.weight");
    if (!embedding.on_stage) return;
    if (!read_part(folder, name, embedding, at::kCPU).equal(held_value(loaded, embedding).cpu())) {
      log_warning("{}: '{}' differs from the embedding it is tied to and is not used",
                  folder.path().string(), name);
    }
  }
}

void read_weights(LoadedModel& loaded, const HubFolder& folder, at::Device device) {
  const auto parameters = by_name(loaded.model.parameters);
  for (const auto& name : folder.names()) {
    const auto it = parameters.find(loaded.family->canonical_name(name));
    if (it == parameters.end()) continue;
    auto& parameter = *it->second;
    if (!parameter.on_stage) continue;
    if (loaded.model.shards) {
      loaded.model.shards->store(parameter, read_part(folder, name, parameter, device));
    } else if (parameter.value.is_meta()) {
      parameter.value =
          read_part(folder, name, parameter, device).set_requires_grad(parameter.trained);
    } else {
      read_part_into(folder, name, parameter, parameter.value.detach());
    }
  }
}

/// Marks what `model.freeze` names; every entry must name something.
void freeze(const Model& model, const std::vector<std::string>& patterns) {
  for (const auto& pattern : patterns) {
    bool found = false;
    for (const auto& parameter : model.parameters) {
      if (parameter->part != pattern && !glob_match(pattern, parameter->name)) continue;
      parameter->trained = false;
      found = true;
    }
    if (found) continue;
    static const std::vector<std::string> kParts = {"vision", "projector", "text"};
    const auto nearest = nearest_name(pattern, kParts);
    fail<UsageError>("model.freeze: \"", pattern,
                     "\" is neither a part (vision, projector, text) nor a pattern that a "
                     "parameter's name matches",
                     nearest.empty() ? "" : "; nearest: ", nearest);
  }
}

/// Puts adapters beside the linear layers that the configuration names and that are not frozen by
/// name; everything else stops being trained. Frozen layers that the targets would match are named
/// in the configuration's exclusions, so that whoever reads the saved files puts adapters where
/// they were trained and nowhere else.
void attach_adapters(LoadedModel& loaded) {
  auto& config = *loaded.lora;
  int64_t count = 0;
  std::vector<std::string> frozen;
  for (auto* linear : loaded.model.linears) {
    const auto module = loaded.family->module_path(linear->path());
    if (!config.adapts(module)) continue;
    if (!linear->weight->trained) {
      frozen.push_back(module);
      continue;
    }
    add_lora(loaded.model, *linear,
             {.rank = config.rank_of(module),
              .scale = config.scale_of(module),
              .dropout = config.dropout});
    ++count;
  }
  require<UsageError>(count > 0, "model.lora.targets: no linear layer that is not frozen matches");
  if (!frozen.empty() && !config.excluded) config.excluded = std::move(frozen);
  for (const auto& parameter : loaded.model.parameters) {
    parameter->trained =
        parameter->name.ends_with(".lora_A.weight") || parameter->name.ends_with(".lora_B.weight");
  }
}

void read_adapter(LoadedModel& loaded, const Adapter& adapter,
                  const std::filesystem::path& folder) {
  const auto parameters = by_name(loaded.model.parameters);
  size_t used = 0;
  for (const auto& [stored, tensor] : adapter.tensors) {
    const auto it = parameters.find(loaded.family->canonical_name(stored));
    require(it != parameters.end(), folder.string(), ": tensor '", stored,
            "' belongs to no layer of this model");
    auto& parameter = *it->second;
    require(tensor.sizes() == at::IntArrayRef(parameter.full_shape), folder.string(), ": tensor '",
            stored, "' is ", tensor.sizes(), ", the model expects ",
            at::IntArrayRef(parameter.full_shape));
    used += parameter.name.find(".lora_") != std::string::npos;
    if (!parameter.on_stage) continue;
    const auto part = part_of(parameter, tensor);
    if (loaded.model.shards) {
      loaded.model.shards->store(parameter, part);
    } else if (parameter.value.is_meta()) {
      parameter.value =
          part.contiguous()
              .to(parameter.value.scalar_type(), /*non_blocking=*/false, /*copy=*/true)
              .set_requires_grad(parameter.trained);
    } else {
      parameter.value.detach().copy_(part);
    }
  }
  const auto wanted = std::count_if(parameters.begin(), parameters.end(), [](const auto& p) {
    return p.first.find(".lora_") != std::string::npos;
  });
  require(used == static_cast<size_t>(wanted), folder.string(), ": holds ", used,
          " adapter tensors, its configuration asks for ", wanted);
}

Json read_config(const ModelRequest& request) {
  if (request.folder.empty()) {
    require<UsageError>(!request.preset.empty(), "model.path or model.preset must be given");
    require<UsageError>(
        request.random_weights,
        "model.path is missing: model.weights = \"load\" needs a folder to load from");
    return nullptr;
  }
  require(std::filesystem::is_directory(request.folder), "model.path: ", request.folder.string(),
          " is not a folder");
  const auto file = request.folder / "config.json";
  require(std::filesystem::exists(file), request.folder.string(),
          ": config.json is missing; is this a model folder?");
  return read_json(file);
}

std::unique_ptr<Family> family_of(const Json& config, const ModelRequest& request) {
  return make_family(config, (request.folder / "config.json").string(), request.preset,
                     request.video_position_rule);
}

}  // namespace

std::unique_ptr<Family> read_family(const ModelRequest& request) {
  return family_of(read_config(request), request);
}

const Parameter* LoadedModel::find(std::string_view stored) const {
  const auto canonical = family->canonical_name(stored);
  const auto it = std::find_if(model.parameters.begin(), model.parameters.end(),
                               [&](const auto& p) { return p->name == canonical; });
  return it == model.parameters.end() ? nullptr : it->get();
}

ParameterList LoadedModel::trained() const {
  ParameterList list;
  std::copy_if(model.parameters.begin(), model.parameters.end(), std::back_inserter(list),
               [](const auto& p) { return p->trained; });
  return list;
}

namespace {
int64_t count_elements(const ParameterList& parameters) {
  int64_t count = 0;
  for (const auto& parameter : parameters) {
    int64_t elements = 1;
    for (const auto size : parameter->full_shape) elements *= size;
    count += elements;
  }
  return count;
}
}  // namespace

int64_t LoadedModel::num_parameters() const { return count_elements(model.parameters); }
int64_t LoadedModel::num_trained() const { return count_elements(trained()); }

at::ScalarType compute_type_of(const std::filesystem::path& folder) {
  const auto weights = HubFolder::open(folder);
  for (const auto& name : weights.names()) {
    const auto type = scalar_type_of(weights.at(name).type);
    if (at::isFloatingType(type)) return type == at::kFloat ? at::kFloat : at::kBFloat16;
  }
  return at::kBFloat16;
}

LoadedModel load_model(const ModelRequest& request) {
  return load_model(request, read_family(request));
}

LoadedModel load_model(const ModelRequest& request, std::unique_ptr<Family> family) {
  LoadedModel loaded;
  loaded.folder = request.folder;
  loaded.device = request.device;
  loaded.config = read_config(request);
  loaded.family = std::move(family);
  if (loaded.config.is_null()) loaded.config = loaded.family->config();
  loaded.groups = request.groups;
  loaded.model = loaded.family->build(request.dtype, request.groups);

  if (!request.random_weights) {
    loaded.source = HubFolder::open(request.folder);
    check_against_folder(loaded, *loaded.source);
    loaded.layout = writable_layout(loaded, *loaded.source);
  } else {
    std::vector<TensorSpec> specs;
    for (const auto& p : loaded.model.parameters)
      specs.push_back({p->name, p->value.scalar_type(), p->full_shape});
    loaded.layout = make_layout(std::move(specs));
  }

  freeze(loaded.model, request.freeze);
  std::optional<Adapter> adapter;
  if (!request.adapter.empty()) {
    adapter = load_adapter(request.adapter);
    loaded.lora = adapter->config;
  } else {
    loaded.lora = request.lora;
  }
  if (loaded.lora) attach_adapters(loaded);
  loaded.cut = StageCut::whole(static_cast<int64_t>(loaded.model.layers.size()));
  if (request.place) request.place(loaded);
  if (request.meta_only) {
    for (const auto& parameter : loaded.model.parameters) {
      if (!request.device.is_meta() || !parameter->on_stage) continue;
      if (loaded.model.shards) {
        loaded.model.shards->store(*parameter, parameter->value);
      } else {
        parameter->value = at::empty_like(parameter->value).set_requires_grad(parameter->trained);
      }
    }
    return loaded;
  }

  if (loaded.source) {
    read_weights(loaded, *loaded.source, request.device);
    check_tied_copy(loaded, *loaded.source);
    if (request.check_finite) {
      const auto bad = nonfinite_tensors(*loaded.source, loaded.source->names());
      require(bad.empty(), request.folder.string(), ": tensor '", bad.empty() ? "" : bad.front(),
              "' holds NaN or infinity (", bad.size(),
              bad.size() == 1 ? " such tensor)" : " such tensors)");
    }
  }
  if (adapter) read_adapter(loaded, *adapter, request.adapter);
  initialise(loaded.model.parameters, request.seed, request.device, loaded.model.shards.get());
  return loaded;
}

void load_weights(LoadedModel& loaded, const std::filesystem::path& weights) {
  const bool holds_adapter = std::filesystem::exists(weights / kAdapterConfigFile);
  require<DataError>(holds_adapter == loaded.lora.has_value(), weights.string(), ": holds ",
                     holds_adapter ? "an adapter, the run trains whole weights (no model.lora)"
                                   : "whole weights, the run trains an adapter (model.lora)");
  if (loaded.lora) {
    read_adapter(loaded, load_adapter(weights), weights);
    return;
  }
  const auto folder = HubFolder::open(weights);
  check_against_folder(loaded, folder);
  for (const auto& parameter : loaded.model.parameters) {
    if (parameter->on_stage) return read_weights(loaded, folder, parameter->value.device());
  }
}

at::Tensor held_value(const LoadedModel& loaded, const Parameter& parameter) {
  return loaded.model.shards ? loaded.model.shards->whole(parameter) : parameter.value.detach();
}

void set_value(const LoadedModel& loaded, Parameter& parameter, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  if (loaded.model.shards) return loaded.model.shards->store(parameter, value);
  parameter.value.detach().copy_(value);
}

void merge_adapters(LoadedModel& loaded) {
  for (auto* linear : loaded.model.linears) {
    if (!linear->lora) continue;
    auto weight = linear->weight->value.detach();
    const auto delta =
        at::matmul(linear->lora->b_OR->value.detach(), linear->lora->a_RI->value.detach());
    weight.copy_(weight.to(at::kFloat) + delta.to(at::kFloat) * linear->lora->scale);
    linear->weight->trained = true;  // no longer what the folder holds
    linear->lora.reset();
  }
  std::erase_if(loaded.model.parameters,
                [](const auto& p) { return p->name.find(".lora_") != std::string::npos; });
  loaded.lora.reset();
}

}  // namespace triptych

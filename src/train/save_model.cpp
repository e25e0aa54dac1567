#include "train/save_model.h"

#include <ATen/ops/empty.h>

#include "base/error.h"
#include "checkpoint/adapter.h"

namespace triptych {

TensorProvider weight_provider(const LoadedModel& loaded) {
  return [&loaded](const std::string& stored) {
    const auto* parameter = loaded.find(stored);
    require(parameter != nullptr, "no parameter is stored as '", stored, "'");
    // A frozen tensor goes out as it came in, also when it is computed with in another precision.
    if (!parameter->trained && loaded.source && loaded.source->contains(stored))
      return loaded.source->view(stored);
    return whole_value(loaded, *parameter);
  };
}

bool is_spread(const LoadedModel& loaded) {
  return loaded.groups.tensor_size() > 1 || loaded.cut.stages > 1 || loaded.model.shards != nullptr;
}

at::Tensor whole_value(const LoadedModel& loaded, const Parameter& parameter) {
  const auto gather = [&] {
    return gather_whole(parameter, held_value(loaded, parameter), loaded.groups.tensor);
  };
  if (loaded.cut.stages == 1) return gather();
  const bool owner = parameter.owner == loaded.pipeline->rank();
  const auto value =
      owner ? gather().contiguous()
            : at::empty(parameter.full_shape,
                        at::TensorOptions(loaded.device).dtype(parameter.value.scalar_type()));
  loaded.pipeline->broadcast(value, parameter.owner, parameter.name);
  return value;
}

std::vector<std::pair<std::string, at::Tensor>> adapter_tensors(const LoadedModel& loaded) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto* linear : loaded.model.linears) {
    if (!linear->lora) continue;
    const auto module = loaded.family->module_path(linear->path());
    tensors.emplace_back(module + ".lora_A.weight", whole_value(loaded, *linear->lora->a_RI));
    tensors.emplace_back(module + ".lora_B.weight", whole_value(loaded, *linear->lora->b_OR));
  }
  return tensors;
}

std::vector<SideFile> model_side_files(const LoadedModel& loaded) {
  auto files = loaded.folder.empty() ? std::vector<SideFile>{} : side_files(loaded.folder);
  if (loaded.folder.empty())
    files.push_back({.name = "config.json", .content = dump_json(loaded.config, 2) + "\n"});
  return files;
}

void save_model(const LoadedModel& loaded, const std::filesystem::path& folder, bool writes) {
  if (loaded.lora) {
    Adapter adapter{.config = *loaded.lora};
    if (!loaded.folder.empty())
      adapter.config.base_model = std::filesystem::absolute(loaded.folder).string();
    for (auto& [name, tensor] : adapter_tensors(loaded)) adapter.tensors.emplace(name, tensor);
    if (writes) save_adapter(folder, adapter);
    return;
  }
  if (!writes) {  // takes part in gathering what the writing rank asks for
    const auto provider = weight_provider(loaded);
    for (const auto& name : loaded.layout.names()) provider(name);
    return;
  }
  save_hub_folder(folder, loaded.layout, weight_provider(loaded), model_side_files(loaded),
                  /*replace=*/true);
}

}  // namespace triptych

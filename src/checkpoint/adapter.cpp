#include "checkpoint/adapter.h"

#include "base/error.h"
#include "base/files.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";

/// Every A has its B, and both have the rank that the configuration says.
void check_pairs(const Adapter& adapter, const std::string& origin) {
  for (const auto& [name, tensor] : adapter.tensors) {
    const bool is_a = name.ends_with(kA), is_b = name.ends_with(kB);
    if (!is_a && !is_b) continue;
    const std::string module = name.substr(0, name.size() - kA.size());
    const std::string other = detail::join_parts(module, is_a ? kB : kA);
    require<DataError>(adapter.tensors.contains(other), origin, ": has '", name, "' but no '",
                       other, "'");
    const int64_t rank = adapter.config.rank_of(module);
    require<DataError>(tensor.dim() == 2 && tensor.size(is_a ? 0 : 1) == rank, origin, ": tensor '",
                       name, "' is ", tensor.sizes(), ", the configuration gives it rank ", rank);
  }
}

}  // namespace

Adapter load_adapter(const fs::path& folder) {
  require<DataError>(fs::is_directory(folder), folder.string(), ": is not a folder; a folder with ",
                     kAdapterConfigFile, " and ", kAdapterWeightsFile, " is expected");
  const fs::path config = folder / kAdapterConfigFile, weights = folder / kAdapterWeightsFile;
  require<DataError>(fs::exists(config), folder.string(), ": has no ", kAdapterConfigFile,
                     "; is this an adapter's folder?");
  require<DataError>(fs::exists(weights) || !fs::exists(folder / "adapter_model.bin"),
                     folder.string(),
                     ": has only the pickle adapter_model.bin, which can run code "
                     "when it is read and is refused; save the adapter as safetensors");
  require<DataError>(fs::exists(weights), folder.string(), ": has no ", kAdapterWeightsFile);
  constexpr uint64_t kMostConfigBytes = 16 << 20;
  Adapter adapter{.config =
                      parse_adapter_config(read_file(config, kMostConfigBytes), config.string())};
  const auto file = SafetensorsFile::open(weights);
  for (const auto& stored : file->header().tensors) {
    require<DataError>(stored.name.starts_with(kAdapterPrefix), weights.string(), ": tensor '",
                       stored.name, "' does not begin with '", kAdapterPrefix, "'");
    adapter.tensors.emplace(stored.name.substr(kAdapterPrefix.size()), file->read(stored.name));
  }
  check_pairs(adapter, weights.string());
  return adapter;
}

HubLayout adapter_layout(const std::map<std::string, at::Tensor>& tensors) {
  std::vector<StoredTensor> stored;
  for (const auto& [name, tensor] : tensors) {
    stored.push_back({.name = detail::join_parts(kAdapterPrefix, name),
                      .type = stored_type_of(tensor.scalar_type()),
                      .shape = tensor.sizes().vec()});
  }
  return {.files = {{kAdapterWeightsFile, make_safetensors_header(std::move(stored))}}};
}

void save_adapter(const fs::path& folder, const Adapter& adapter) {
  const std::vector<SideFile> files = {
      {.name = kAdapterConfigFile, .content = dump_adapter_config(adapter.config)}};
  const auto provider = [&](const std::string& name) {
    return adapter.tensors.at(name.substr(kAdapterPrefix.size()));
  };
  save_hub_folder(folder, adapter_layout(adapter.tensors), provider, files, /*replace=*/true);
}

}  // namespace triptych

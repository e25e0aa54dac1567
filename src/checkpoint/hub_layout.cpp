#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/json.h"
#include "checkpoint/folder_swap.h"
#include "checkpoint/hub_folder.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

}  // namespace

std::vector<std::string> HubLayout::names() const {
  std::vector<std::string> names;
  for (const auto& file : files) {
    for (const auto& tensor : file.header.tensors) names.push_back(tensor.name);
  }
  return names;
}

int64_t HubLayout::data_bytes() const {
  int64_t bytes = 0;
  for (const auto& file : files) bytes += file.header.data_bytes();
  return bytes;
}

std::string HubLayout::index() const {
  if (index_name.empty() || !index_text.empty()) return index_text;
  std::map<std::string, std::string> map;  // the reference sorts the names
  for (const auto& file : files) {
    for (const auto& tensor : file.header.tensors) map[tensor.name] = file.name;
  }
  Json weight_map = Json::object();
  auto& members = weight_map.get_ref<Json::object_t&>();
  members.reserve(map.size());  // pushed at the end: looking up each key would walk the object
  for (auto& [name, file] : map) members.push_back({name, std::move(file)});
  const Json index = {{"metadata", {{"total_size", data_bytes()}}},
                      {"weight_map", std::move(weight_map)}};
  return dump_json(index, 2) + "\n";
}

HubLayout make_layout(std::vector<TensorSpec> tensors, int64_t max_file_bytes,
                      std::string_view stem) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<std::vector<StoredTensor>> files(1);
  int64_t filled = 0;
  for (auto& spec : tensors) {
    int64_t bytes = static_cast<int64_t>(c10::elementSize(spec.dtype));
    for (const int64_t size : spec.shape) bytes *= size;
    if (!files.back().empty() && filled + bytes > max_file_bytes) {
      files.emplace_back();
      filled = 0;
    }
    filled += bytes;
    files.back().push_back({.name = std::move(spec.name),
                            .type = stored_type_of(spec.dtype),
                            .shape = std::move(spec.shape)});
  }
  HubLayout layout;
  if (files.size() > 1) layout.index_name = fmt::format("{}.safetensors.index.json", stem);
  for (size_t i = 0; i < files.size(); ++i) {
    layout.files.push_back({files.size() == 1 ? fmt::format("{}.safetensors", stem)
                                              : fmt::format("{}-{:05}-of-{:05}.safetensors", stem,
                                                            i + 1, files.size()),
                            make_safetensors_header(std::move(files[i]))});
  }
  return layout;
}

HubLayout with_dtype(const HubLayout& layout, at::ScalarType dtype) {
  HubLayout result = layout;
  result.index_text.clear();  // its total_size changes
  for (auto& file : result.files) {
    for (auto& tensor : file.header.tensors) {
      if (at::isFloatingType(scalar_type_of(tensor.type))) tensor.type = stored_type_of(dtype);
    }
    file.header =
        make_safetensors_header(std::move(file.header.tensors), std::move(file.header.metadata));
  }
  return result;
}

std::vector<SideFile> side_files(const fs::path& folder) {
  // By kind, not by name: families differ in what they need beside the weights.
  constexpr std::array<std::string_view, 5> kKinds = {".json", ".jinja", ".model", ".txt", ".py"};
  constexpr uintmax_t kMostBytes = uintmax_t{256} << 20;
  std::vector<SideFile> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name.starts_with('.')) continue;
    const bool licence = name.starts_with("LICENSE") || name.starts_with("NOTICE");
    const bool kind =
        std::find(kKinds.begin(), kKinds.end(), entry.path().extension().string()) != kKinds.end();
    const bool weights = name.ends_with(".index.json") || name.starts_with("adapter_");
    if ((kind || licence) && !weights && name != "trainer_state.json" &&
        entry.file_size() <= kMostBytes) {
      files.push_back({.name = name, .source = entry.path()});
    }
  }
  std::sort(files.begin(), files.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

FileDigest write_side_file(const fs::path& folder, const SideFile& file) {
  require(file.name == fs::path(file.name).filename().string() && !file.name.empty(),
          folder.string(), ": '", file.name, "' is not the name of a file in this folder");
  OutputFile out(folder / file.name);
  out.write(file.source.empty() ? file.content : read_file(file.source));
  return out.finish();
}

void save_hub_folder(const fs::path& folder, const HubLayout& layout,
                     const TensorProvider& provider, std::span<const SideFile> files,
                     bool replace) {
  FolderSwap swap(folder, replace);
  for (const auto& file : layout.files) {
    SafetensorsWriter writer(swap.temporary() / file.name, file.header);
    for (const auto& tensor : file.header.tensors) writer.write(provider(tensor.name));
    writer.finish();
  }
  if (!layout.index_name.empty()) {
    write_side_file(swap.temporary(), {.name = layout.index_name, .content = layout.index()});
  }
  for (const auto& file : files) write_side_file(swap.temporary(), file);
  swap.finish();
}

}  // namespace triptych

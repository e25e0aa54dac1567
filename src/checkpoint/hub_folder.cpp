#include "checkpoint/hub_folder.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/json.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".safetensors";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

/// The stem whose weights lie in the folder; a single file goes before an index, as in the
/// reference.
std::string find_stem(const fs::path& folder, std::string_view wanted) {
  std::vector<std::string> stems = {"model", "diffusion_pytorch_model"};
  if (!wanted.empty()) stems = {std::string(wanted)};
  for (const auto& stem : stems) {
    for (const auto suffix : {kSuffix, kIndexSuffix}) {
      if (fs::exists(folder / (stem + std::string(suffix)))) return stem;
    }
  }
  std::string pickles;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
      pickles += (pickles.empty() ? "" : ", ") + entry.path().filename().string();
    }
  }
  require<DataError>(pickles.empty(), folder.string(), ": has no safetensors, only pickles (",
                     pickles,
                     "), which can run code when they are read and are refused; convert them to "
                     "safetensors first");
  fail<DataError>(folder.string(), ": has neither ", stems[0], kSuffix, " nor ", stems[0],
                  kIndexSuffix, "; is this a model's folder, fully downloaded?");
}

/// name -> file of an index.
std::unordered_map<std::string, std::string> read_weight_map(const std::string& text,
                                                             const std::string& origin) {
  const Json index = parse_json(text, origin);
  const Json& map = json_member(index, "weight_map", origin);
  require<DataError>(map.is_object() && !map.empty(), origin,
                     ": 'weight_map' must be an object of tensor names and file names");
  std::unordered_map<std::string, std::string> files;
  for (const auto& [name, file] : map.items()) {
    require<DataError>(file.is_string(), origin, ": 'weight_map' gives '", name, "' the file ",
                       file.dump(), ", a name is expected");
    const auto& text_of_file = file.get_ref<const std::string&>();
    require<DataError>(text_of_file == fs::path(text_of_file).filename().string() &&
                           text_of_file.ends_with(kSuffix),
                       origin, ": 'weight_map' gives '", name, "' the file '", text_of_file,
                       "'; allowed are .safetensors files of this folder");
    files.emplace(name, text_of_file);
  }
  return files;
}

void check_shards_exist(const fs::path& folder, const std::string& index_name,
                        const std::set<std::string>& files) {
  std::string missing;
  int64_t count = 0;
  for (const auto& file : files) {
    if (fs::exists(folder / file)) continue;
    if (count++ < 10) missing += (missing.empty() ? "" : ", ") + file;
  }
  require<DataError>(count == 0, folder.string(), ": ", count, " of the ", files.size(),
                     " files named by ", index_name, " are missing: ", missing,
                     count > 10 ? ", ..." : "", "; is the folder fully downloaded?");
}

std::string shown(const std::vector<int64_t>& shape) {
  return detail::join_parts(at::IntArrayRef(shape));
}

template <class Item, class Line>
void append_lines(std::string& text, const std::vector<Item>& items, std::string_view title,
                  Line&& line) {
  constexpr size_t kShown = 10;
  if (items.empty()) return;
  if (!text.empty()) text += '\n';
  text += fmt::format("{} {} {}:", items.size(), items.size() == 1 ? "tensor" : "tensors", title);
  for (size_t i = 0; i < std::min(items.size(), kShown); ++i) text += "\n  " + line(items[i]);
  if (items.size() > kShown) text += fmt::format("\n  and {} more", items.size() - kShown);
}

/// Whether any word has all bits of its exponent set: a NaN or an infinity.
template <class Word>
bool has_nonfinite(const Word* words, int64_t count, Word exponent) {
  std::atomic<bool> found{false};
  at::parallel_for(0, count, 1 << 20, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end && !found.load(std::memory_order_relaxed);) {
      const int64_t stop = std::min(end, i + 4096);
      unsigned any = 0;
      for (; i < stop; ++i) any |= (words[i] & exponent) == exponent;
      if (any != 0) found = true;
    }
  });
  return found;
}

}  // namespace

HubFolder HubFolder::open(const fs::path& folder, std::string_view stem) {
  require<DataError>(fs::is_directory(folder), folder.string(), ": ",
                     fs::exists(folder) ? "is not a folder" : "does not exist",
                     "; a folder with a model's weights is expected");
  const std::string found = find_stem(folder, stem);
  HubFolder hub;
  hub.path_ = folder;
  std::unordered_map<std::string, std::string> map;
  std::set<std::string> files = {found + std::string(kSuffix)};
  if (!fs::exists(folder / *files.begin())) {
    hub.index_name_ = found + std::string(kIndexSuffix);
    const fs::path index = folder / hub.index_name_;
    hub.index_text_ = read_file(index);
    map = read_weight_map(hub.index_text_, index.string());
    files.clear();
    for (const auto& [name, file] : map) files.insert(file);
    check_shards_exist(folder, hub.index_name_, files);
  }
  for (const auto& name : files) {
    const auto& file = hub.files_.emplace_back(SafetensorsFile::open(folder / name));
    for (const auto& tensor : file->header().tensors) {
      const auto [at, fresh] = hub.where_.emplace(tensor.name, file.get());
      require<DataError>(fresh, folder.string(), ": tensor '", tensor.name, "' is in both ",
                         fresh ? "" : at->second->path().filename().string(), " and ", name);
      hub.names_.push_back(tensor.name);
    }
  }
  for (const auto& [name, file] : map) {
    const auto at = hub.where_.find(name);
    require<DataError>(
        at != hub.where_.end() && at->second->path().filename() == file,
        (folder / hub.index_name_).string(), ": says that tensor '", name, "' is in ", file, ", ",
        at == hub.where_.end() ? "which has none of that name"
                               : "but it is in " + at->second->path().filename().string());
  }
  return hub;
}

const StoredTensor* HubFolder::find(std::string_view name) const {
  const auto at = where_.find(name);
  return at == where_.end() ? nullptr : at->second->find(name);
}

const SafetensorsFile& HubFolder::file_of(std::string_view name) const {
  const auto at = where_.find(name);
  require<DataError>(at != where_.end(), path_.string(), ": has no tensor '", name, "' among its ",
                     names_.size());
  return *at->second;
}

const StoredTensor& HubFolder::at(std::string_view name) const { return file_of(name).at(name); }

at::Tensor HubFolder::view(std::string_view name) const { return file_of(name).view(name); }

at::Tensor HubFolder::read(std::string_view name, std::optional<at::ScalarType> dtype,
                           std::optional<TensorSlice> slice) const {
  return file_of(name).read(name, dtype, slice);
}

void HubFolder::read_into(std::string_view name, const at::Tensor& destination,
                          std::optional<TensorSlice> slice) const {
  file_of(name).read_into(name, destination, slice);
}

HubLayout HubFolder::layout() const {
  HubLayout layout{.index_name = index_name_, .index_text = index_text_};
  for (const auto& file : files_) {
    layout.files.push_back({file->path().filename().string(), file->header()});
  }
  return layout;
}

std::string TensorComparison::report() const {
  std::string text;
  const auto quoted = [](const std::string& name) { return "'" + name + "'"; };
  append_lines(text, missing, "missing", quoted);
  append_lines(text, unexpected, "not known to the model", quoted);
  append_lines(text, wrong_shape, "of another shape", [](const Mismatch& m) {
    return fmt::format("{}: tensor '{}' is {}, the model expects {}", m.file, m.name,
                       shown(m.stored), shown(m.expected));
  });
  return text;
}

TensorComparison compare_tensors(std::span<const ExpectedTensor> expected,
                                 const HubFolder& folder) {
  TensorComparison result;
  std::unordered_map<std::string_view, const ExpectedTensor*> known;
  for (const auto& tensor : expected) {
    known.emplace(tensor.name, &tensor);
    if (!folder.contains(tensor.name)) result.missing.push_back(tensor.name);
  }
  for (const auto& file : folder.layout().files) {
    for (const auto& stored : file.header.tensors) {
      const auto at = known.find(stored.name);
      if (at == known.end()) {
        result.unexpected.push_back(stored.name);
      } else if (stored.shape != at->second->shape) {
        result.wrong_shape.push_back({stored.name, file.name, stored.shape, at->second->shape});
      }
    }
  }
  return result;
}

std::vector<std::string> nonfinite_tensors(const HubFolder& folder,
                                           std::span<const std::string> names) {
  std::vector<std::string> found;
  for (const auto& name : names) {
    const auto& stored = folder.at(name);
    const auto tensor = folder.view(name);
    const void* data = tensor.const_data_ptr();
    const int64_t count = tensor.numel();
    bool bad = false;
    switch (stored.type) {
      case StoredType::kBF16:
        bad = has_nonfinite<uint16_t>(static_cast<const uint16_t*>(data), count, 0x7f80);
        break;
      case StoredType::kF16:
        bad = has_nonfinite<uint16_t>(static_cast<const uint16_t*>(data), count, 0x7c00);
        break;
      case StoredType::kF32:
        bad = has_nonfinite<uint32_t>(static_cast<const uint32_t*>(data), count, 0x7f800000);
        break;
      case StoredType::kF64:
        bad =
            has_nonfinite<uint64_t>(static_cast<const uint64_t*>(data), count, 0x7ff0000000000000);
        break;
      default:
        break;  // integers are finite; fp8 has no sign of overflow that all variants share
    }
    if (bad) found.push_back(name);
  }
  return found;
}

}  // namespace triptych

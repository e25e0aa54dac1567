#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "checkpoint/safetensors.h"

namespace triptych {

/// How the tensors of a model lie in files: what a save repeats so that an untouched model comes
/// out byte for byte.
struct HubLayout {
  struct File {
    std::string name;          ///< "model-00001-of-00002.safetensors"
    SafetensorsHeader header;  ///< tensors in the order of their data
  };
  std::vector<File> files;
  std::string index_name;  ///< "model.safetensors.index.json"; empty: one file, no index
  std::string index_text;  ///< the index as it was read; empty: written new

  std::vector<std::string> names() const;  ///< file by file, in the order of the data
  int64_t data_bytes() const;
  std::string index() const;  ///< the index's text: as read, or new with the names sorted
};

struct TensorSpec {
  std::string name;
  at::ScalarType dtype = at::kBFloat16;
  std::vector<int64_t> shape;
};

/// A layout of our own: names sorted, files of at most `max_file_bytes` of data (a larger tensor
/// gets a file of its own), `model.safetensors` alone or `model-00001-of-0000N.safetensors` with
/// their index. `stem` is "model" or "diffusion_pytorch_model".
HubLayout make_layout(std::vector<TensorSpec> tensors, int64_t max_file_bytes = 5'000'000'000,
                      std::string_view stem = "model");

/// The same files and order with every floating-point tensor stored as `dtype`.
HubLayout with_dtype(const HubLayout& layout, at::ScalarType dtype);

/// A Hugging Face or diffusers folder of safetensors, single or sharded. Only stored names are
/// known here; a family's other spellings are its hub map's business. Nothing is executed: a folder
/// that has only pickles (`.bin`, `.pt`) is refused. Const functions may be called from any thread.
class HubFolder {
 public:
  /// Opens every shard and checks it against the index before any weight is read: a missing shard,
  /// a truncated one (both sizes), a name in the index that its shard lacks, a name in two shards.
  /// A tensor that only the index forgot is there all the same, as in the reference library.
  /// @param stem "model", "diffusion_pytorch_model", ...; empty: whichever is there.
  /// @throws DataError
  static HubFolder open(const std::filesystem::path& folder, std::string_view stem = "");

  const std::filesystem::path& path() const { return path_; }
  /// Every tensor's name, file by file.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// Shape, stored dtype; nullptr when there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  /// @throws DataError naming the folder.
  const StoredTensor& at(std::string_view name) const;

  /// As SafetensorsFile's functions of these names.
  at::Tensor view(std::string_view name) const;
  at::Tensor read(std::string_view name, std::optional<at::ScalarType> dtype = {},
                  std::optional<TensorSlice> slice = {}) const;
  void read_into(std::string_view name, const at::Tensor& destination,
                 std::optional<TensorSlice> slice = {}) const;

  /// For save_hub_folder and CheckpointWriter.
  HubLayout layout() const;

 private:
  const SafetensorsFile& file_of(std::string_view name) const;

  std::filesystem::path path_;
  std::string index_name_, index_text_;
  std::vector<std::shared_ptr<SafetensorsFile>> files_;
  std::vector<std::string> names_;
  std::unordered_map<std::string_view, const SafetensorsFile*> where_;  // keys live in the headers
};

/// What a model wants from a folder.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

struct TensorComparison {
  std::vector<std::string> missing, unexpected;
  struct Mismatch {
    std::string name, file;
    std::vector<int64_t> stored, expected;
  };
  std::vector<Mismatch> wrong_shape;

  bool ok() const { return missing.empty() && unexpected.empty() && wrong_shape.empty(); }
  /// Counts and the first ten of each kind, one a line.
  std::string report() const;
};

TensorComparison compare_tensors(std::span<const ExpectedTensor> expected, const HubFolder& folder);

/// The tensor of a stored name; called once for each, so that memory never holds the model twice.
using TensorProvider = std::function<at::Tensor(const std::string& name)>;

/// A small file beside the weights: bytes, or a file to copy.
struct SideFile {
  std::string name;
  std::string content;  ///< used when `source` is empty
  std::filesystem::path source;
};

/// The configuration, tokenizer, processor and template files of `folder` that a saved model keeps
/// beside its weights (also Python modules of remote-code models, which are copied, never run).
std::vector<SideFile> side_files(const std::filesystem::path& folder);

/// @throws Error when the name is not that of a file directly in `folder`.
FileDigest write_side_file(const std::filesystem::path& folder, const SideFile& file);

/// Writes a folder that the reference library loads as it is. Complete or absent: written as
/// `.NAME.tmp-PID` beside `folder`, flushed, renamed. When the tensors are those that were read
/// with `layout`, the files equal the originals byte for byte.
/// @param replace an existing non-empty `folder` is exchanged in one step and then removed; else
/// refused.
void save_hub_folder(const std::filesystem::path& folder, const HubLayout& layout,
                     const TensorProvider& provider, std::span<const SideFile> files = {},
                     bool replace = false);

/// The names among `names` whose floating-point tensors hold a NaN or an infinity.
std::vector<std::string> nonfinite_tensors(const HubFolder& folder,
                                           std::span<const std::string> names);

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/output_file.h"
#include "checkpoint/safetensors_header.h"

namespace triptych {

at::ScalarType scalar_type_of(StoredType type);
/// @throws Error for a dtype that safetensors has no name for.
StoredType stored_type_of(at::ScalarType type);

/// Part of a tensor along one dim: [start, start + length).
struct TensorSlice {
  int64_t dim = 0, start = 0, length = 0;
};

/// One safetensors file, checked when opened and mapped into memory. The functions are const and
/// may be called from several threads.
class SafetensorsFile : public std::enable_shared_from_this<SafetensorsFile> {
 public:
  /// @throws DataError for everything `parse_safetensors_header` refuses; Error when unreadable.
  static std::shared_ptr<SafetensorsFile> open(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  const StoredTensor* find(std::string_view name) const;
  /// @throws DataError naming the file.
  const StoredTensor& at(std::string_view name) const;

  /// A CPU tensor that lies in the mapping and keeps it alive; nothing is read before it is
  /// touched. Writing to it changes private pages, never the file.
  at::Tensor view(std::string_view name) const;

  /// A copy, converted to `dtype` when given. Several threads (libtorch's setting); the pages go
  /// from the page cache straight into the result and stay out of this process.
  at::Tensor read(std::string_view name, std::optional<at::ScalarType> dtype = {},
                  std::optional<TensorSlice> slice = {}) const;

  /// The same into `destination`: any dtype and device, any strides; its shape must be that of the
  /// tensor or slice. What lies outside the slice is not read (rows), or read in passing (columns).
  void read_into(std::string_view name, const at::Tensor& destination,
                 std::optional<TensorSlice> slice = {}) const;

  /// Elements [begin, begin + destination.numel()) of the flattened tensor.
  void read_range(std::string_view name, int64_t begin, const at::Tensor& destination) const;

 private:
  SafetensorsFile() = default;
  struct Index;
  std::filesystem::path path_;
  SafetensorsHeader header_;
  std::unique_ptr<Index> index_;
  int fd_ = -1;
  std::byte* data_ = nullptr;  // the whole file
  size_t size_ = 0;
};

/// Writes one file tensor by tensor in the header's order, without holding more than one.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, SafetensorsHeader header);
  /// The next tensor of the header: same shape; converted when of another dtype or not contiguous,
  /// brought to the host when elsewhere.
  void write(const at::Tensor& tensor);
  /// @throws Error when tensors are missing; see OutputFile::finish.
  FileDigest finish();

 private:
  SafetensorsHeader header_;
  OutputFile file_;
  std::string path_;
  size_t next_ = 0;
};

/// All at once, in the order given.
FileDigest save_safetensors(const std::filesystem::path& path,
                            const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                            std::vector<std::pair<std::string, std::string>> metadata = {
                                {"format", "pt"}});

}  // namespace triptych

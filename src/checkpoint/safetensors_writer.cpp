#include <algorithm>

#include "base/error.h"
#include "checkpoint/safetensors.h"

namespace triptych {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;  // of a tensor that must be converted or fetched

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, SafetensorsHeader header)
    : header_(std::move(header)), file_(path, header_.file_bytes()), path_(path.string()) {
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<char>(static_cast<uint64_t>(header_.text.size()) >> 8 * i & 0xff);
  }
  file_.write(length);
  file_.write(header_.text);
}

void SafetensorsWriter::write(const at::Tensor& tensor) {
  require(next_ < header_.tensors.size(), path_, ": all ", next_, " tensors are written already");
  const auto& stored = header_.tensors[next_++];
  require(tensor.sizes() == at::IntArrayRef(stored.shape), path_, ": tensor '", stored.name,
          "' is ", tensor.sizes(), ", the file's header says ", at::IntArrayRef(stored.shape));
  const auto type = scalar_type_of(stored.type);
  const auto from = tensor.detach();
  if (from.device().is_cpu() && from.scalar_type() == type && from.is_contiguous()) {
    file_.write(bytes_of(from));
    return;
  }
  // In blocks, so that the tensor never exists twice.
  const auto rows = from.is_contiguous() ? from.view({-1})
                    : from.dim() == 0    ? from.view({1})
                                         : from;
  const int64_t row_bytes =
      std::max<int64_t>(1, stored.bytes() / std::max<int64_t>(1, rows.size(0)));
  const int64_t step = std::max<int64_t>(1, kBlockBytes / row_bytes);
  for (int64_t row = 0; row < rows.size(0); row += step) {
    const auto block = rows.narrow(0, row, std::min(step, rows.size(0) - row))
                           .to(at::TensorOptions().device(at::kCPU).dtype(type))
                           .contiguous();
    file_.write(bytes_of(block));
  }
}

FileDigest SafetensorsWriter::finish() {
  require(next_ == header_.tensors.size(), path_, ": ", header_.tensors.size() - next_, " of ",
          header_.tensors.size(), " tensors are not written");
  return file_.finish();
}

FileDigest save_safetensors(const std::filesystem::path& path,
                            const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                            std::vector<std::pair<std::string, std::string>> metadata) {
  std::vector<StoredTensor> stored;
  stored.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    stored.push_back({.name = name,
                      .type = stored_type_of(tensor.scalar_type()),
                      .shape = tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, make_safetensors_header(std::move(stored), std::move(metadata)));
  for (const auto& [name, tensor] : tensors) writer.write(tensor);
  return writer.finish();
}

}  // namespace triptych

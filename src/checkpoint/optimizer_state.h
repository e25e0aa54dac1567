#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/safetensors.h"

namespace triptych {

/// Reads any range of any parameter's optimizer state, however many ranks wrote it and however they
/// had cut it. Opening reads the index alone; files are opened when first needed. One thread.
class OptimizerStateReader {
 public:
  /// @param folder `checkpoints/step_00000500/optimizer`. @throws DataError
  explicit OptimizerStateReader(const std::filesystem::path& folder);
  ~OptimizerStateReader();
  OptimizerStateReader(OptimizerStateReader&&) noexcept;

  std::vector<std::string> parameters() const;
  bool contains(std::string_view parameter, std::string_view kind) const;
  const std::vector<int64_t>& shape(std::string_view parameter) const;

  /// Elements [begin, end) of the flattened parameter, or of the flattened `slice` of it, into
  /// `destination` (fp32 or another floating dtype, end - begin elements).
  /// @throws DataError naming the parameter and the elements that no rank stored.
  void read_range(std::string_view parameter, std::string_view kind, int64_t begin, int64_t end,
                  const at::Tensor& destination, std::optional<TensorSlice> slice = {}) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace triptych

#pragma once

// B samples   E size of the conditioning   D hidden size

#include <ATen/core/Tensor.h>

#include <string>

#include "nn/linear.h"
#include "nn/tensor_region.h"

namespace triptych {

/// Shifts, scales and gates that a conditioning vector (of the diffusion time) gives each sample:
/// Linear(silu(c)), cut into `count` vectors of the hidden size. The matrix, a fourth of a video
/// transformer's parameters, is split by rows over the tensor ranks; its small result is gathered.
/// Source: adaLN of DiT, arXiv:2212.09748.
class Modulation {
 public:
  /// @param path      module path on the hub of the linear layer.
  /// @param place     of what the result modulates.
  /// @param init_std  0: adaLN-zero.
  Modulation(ParameterBuilder& builder, const std::string& path, const std::string& part,
             int64_t conditioning, int64_t hidden, int64_t count, Place place, double init_std);

  /// @param c_BE  the same on every tensor rank; its gradient is whole there.
  /// @return      [count, B, D], the same on every tensor rank.
  at::Tensor forward(const at::Tensor& c_BE) const;

  const Linear& linear() const { return linear_; }

 private:
  int64_t hidden_;
  bool finds_part_;
  Linear linear_;
};

}  // namespace triptych

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

#include "kernels/linear_cross_entropy.h"

namespace triptych {

/// As reference::linear_cross_entropy, on the meta device. Internal to this folder: a part of the
/// vocabulary goes past the dispatcher.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> meta_linear_cross_entropy(
    const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
    const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
    const VocabularyPart* part);

/// Sums of sparse and dense tensors on the meta device; from then on in this process.
void replace_sparse_sums();

}  // namespace triptych

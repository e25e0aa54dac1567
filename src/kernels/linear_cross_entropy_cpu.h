#pragma once

// The AVX-512 bf16 path of linear_cross_entropy. Internal to this folder.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

#include "kernels/linear_cross_entropy.h"

namespace triptych {

/// Whether this CPU and these sizes have the fast path; otherwise use the reference.
bool has_fast_cross_entropy(const at::Tensor& h, const at::Tensor& weight);

/// reference::linear_cross_entropy by slabs of the vocabulary. A slab is one thread's work, and
/// slabs depend on sizes only, so the result is the same on any number of threads.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> fast_linear_cross_entropy(
    const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
    const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
    const VocabularyPart* part = nullptr);

/// Memory that the fast path takes beside its results.
struct CrossEntropyScratch {
  int64_t packed_bytes = 0;  ///< the rows of h, twice
  int64_t logits_bytes = 0;  ///< kept ones, or those of a slab
  int64_t slabs = 0;         ///< each with a dh of its own in fp32
};
CrossEntropyScratch fast_cross_entropy_scratch(int64_t N, int64_t V, int64_t D,
                                               int64_t logits_bytes);

}  // namespace triptych

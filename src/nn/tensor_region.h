#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/index_select.h>

#include "nn/parameter_builder.h"
#include "parallel/collectives.h"

namespace triptych {

/// Where a block with parameters of its own stands: between matrices (each tensor rank may hold its
/// own tokens there), or inside a tensor region, where each rank finds a part of the gradient.
enum class Place : uint8_t { kBetween, kInRegion };

/// Whether each tensor rank finds a part of the gradient of what all of them hold whole at `place`.
inline bool finds_part(Place place, const ModelGroups& groups) {
  return place == Place::kInRegion || groups.split_tokens();
}

/// Where a model goes from hidden states between matrices to layers that are split over the tensor
/// ranks; row-split layers lead out of it again. Between matrices every rank holds all tokens, or,
/// with sequence parallelism, its own part of them (T / ranks, in order).
class TensorRegion {
 public:
  explicit TensorRegion(const ParameterBuilder& builder)
      : groups_(builder.groups()), group_(groups_.tensor), tokens_split_(groups_.split_tokens()) {}

  /// All tokens of x, on every rank; backward sums what the ranks found. One gather serves all
  /// layers that take the result.
  at::Tensor enter(const at::Tensor& x_TD) const {
    return tokens_split_ ? gather_tokens(x_TD, group_) : copy_to_ranks(x_TD, group_);
  }

  /// Some of the tokens, numbered as if one rank held all.
  at::Tensor enter_rows(const at::Tensor& x_TD, const at::Tensor& rows_N) const {
    return tokens_split_ ? gather_tokens(x_TD, group_).index_select(0, rows_N)
                         : copy_to_ranks(x_TD.index_select(0, rows_N), group_);
  }

  /// Whether the ranks hold other tokens between matrices.
  bool tokens_split() const { return tokens_split_; }

  /// This rank's part of a list with one entry a token (or a fixed number of tokens), the same on
  /// every rank and not differentiated; all of it where tokens are not split.
  at::Tensor own_tokens(const at::Tensor& list_T) const {
    if (!tokens_split_) return list_T;
    const int64_t count = list_T.size(0) / groups_.tensor_size();
    return list_T.narrow(0, groups_.tensor_rank() * count, count);
  }

 private:
  ModelGroups groups_;
  Group* group_;
  bool tokens_split_;
};

}  // namespace triptych

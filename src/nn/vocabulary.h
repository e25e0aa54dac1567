#pragma once

// The two ends of a text model whose vocabulary is split over the tensor ranks: embedding, and
// projection with its loss. Source: Megatron-LM, arXiv:1909.08053, section 3.
//
// V vocabulary   D hidden size   T tokens   n tokens that are no placeholder   C features
// N tokens with a label

#include <ATen/core/Tensor.h>

#include "kernels/linear_cross_entropy.h"
#include "nn/parameter_builder.h"
#include "parallel/parameter.h"

namespace triptych {

/// A table [V, D] cut by rows as evenly as can be; there are no padded rows.
ParameterPtr make_vocabulary(ParameterBuilder& builder, const std::string& name,
                             const std::string& part, int64_t vocabulary, int64_t hidden,
                             double init_std);

/// Embeddings of a text with features at its placeholders. Each rank looks up the ids that it
/// holds; the rows are then summed over the ranks, and with sequence parallelism each goes on with
/// its own part of the tokens.
class TokenEmbedding {
 public:
  TokenEmbedding(ParameterPtr weight, const ModelGroups& groups)
      : weight_(std::move(weight)), groups_(groups) {}

  /// @param ids_n        int64, the tokens that are no placeholder.
  /// @param features_CD  of the placeholders, the same on every rank; may be undefined.
  /// @param order_T      int64 in [0, n + C): row of each token in [ids; features]; only read where
  ///                     there are features.
  /// @return [T, D], or [T / ranks, D].
  at::Tensor forward(const at::Tensor& ids_n, const at::Tensor& features_CD,
                     const at::Tensor& order_T) const;

 private:
  at::Tensor held_rows(const at::Tensor& ids) const;
  at::Tensor with_split_tokens(const at::Tensor& ids_n, const at::Tensor& features_CD,
                               const at::Tensor& order_T) const;

  ParameterPtr weight_;
  ModelGroups groups_;
};

/// linear_cross_entropy with the rows of `weight` split over the tensor ranks; the result is the
/// same on all of them. No rank ever holds all logits.
/// @param h_ND  as TensorRegion::enter gives it: each rank finds a part of its gradient.
CrossEntropy vocabulary_cross_entropy(const at::Tensor& h_ND, const Parameter& weight_VD,
                                      const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                                      const ModelGroups& groups);

/// Logits of all V words on every rank. On more than one rank it is not differentiable.
at::Tensor vocabulary_logits(const at::Tensor& h_MD, const Parameter& weight_VD,
                             const ModelGroups& groups);

}  // namespace triptych

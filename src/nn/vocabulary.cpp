#include "nn/vocabulary.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "kernels/embedding.h"
#include "parallel/collectives.h"
#include "parallel/group.h"

namespace triptych {

ParameterPtr make_vocabulary(ParameterBuilder& builder, const std::string& name,
                             const std::string& part, int64_t vocabulary, int64_t hidden,
                             double init_std) {
  return builder.make(name, part, {vocabulary, hidden}, {Parameter::Init::Kind::kNormal, init_std},
                      {.split = Placement::Split{.dim = 0, .axis = Axis::kTensor}});
}

/// Rows of the ids that this rank holds, zeros for the others.
at::Tensor TokenEmbedding::held_rows(const at::Tensor& ids) const {
  const auto& weight = weight_->value;
  if (weight_->held.empty()) return embedding_rows(weight, ids);
  const auto [start, length] = weight_->held.front();
  const auto places = ids.ge(start).logical_and(ids.lt(start + length)).nonzero().squeeze(1);
  const auto rows = embedding_rows(weight, ids.index_select(0, places) - start);
  return at::zeros({ids.size(0), weight.size(1)}, rows.options().requires_grad(false))
      .index_copy(0, places, rows);
}

at::Tensor TokenEmbedding::forward(const at::Tensor& ids_n, const at::Tensor& features_CD,
                                   const at::Tensor& order_T) const {
  if (groups_.split_tokens()) return with_split_tokens(ids_n, features_CD, order_T);
  const auto x_nD = reduce_from_ranks(held_rows(ids_n), groups_.tensor);
  if (!features_CD.defined()) return x_nD;
  // Placeholders never reach the embedding: its gradient has only rows of real tokens.
  return at::cat({x_nD, features_CD.to(x_nD.scalar_type())}).index_select(0, order_T);
}

at::Tensor TokenEmbedding::with_split_tokens(const at::Tensor& ids_n, const at::Tensor& features_CD,
                                             const at::Tensor& order_T) const {
  const auto rows_nD = held_rows(ids_n);
  if (!features_CD.defined()) return scatter_sum_tokens(rows_nD, groups_.tensor);

  const int64_t n = rows_nD.size(0), D = rows_nD.size(1);
  const auto zero = at::zeros({1, D}, rows_nD.options().requires_grad(false));
  const auto x_TD = at::cat({rows_nD, zero}).index_select(0, order_T.clamp_max(n));
  const auto own = scatter_sum_tokens(x_TD, groups_.tensor);

  // The features that stand among this rank's tokens; other ranks take others.
  const auto features = copy_to_ranks(features_CD.to(own.scalar_type()), groups_.tensor);
  const int64_t count = own.size(0);
  const auto order = order_T.narrow(0, groups_.tensor_rank() * count, count);
  const auto place =
      at::where(order.ge(n), order + (count - n), at::arange(count, order.options()));
  return at::cat({own, features}).index_select(0, place);
}

CrossEntropy vocabulary_cross_entropy(const at::Tensor& h_ND, const Parameter& weight_VD,
                                      const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                                      const ModelGroups& groups) {
  if (weight_VD.held.empty())
    return linear_cross_entropy(h_ND, weight_VD.value, labels_N, token_weights_N);
  const VocabularyPart part{
      .first = weight_VD.held.front().start,
      .size = weight_VD.full_shape[0],
      .join = [group = groups.tensor](const at::Tensor& lse_N, const at::Tensor& target_N) {
        if (lse_N.numel() == 0) return;  // on every rank alike
        const auto most_N = lse_N.clone();
        group->all_reduce(most_N, ReduceOp::kMax, "cross entropy");
        const auto sums_2N = at::stack({(lse_N - most_N).exp(), target_N});
        group->all_reduce(sums_2N, ReduceOp::kSum, "cross entropy");
        lse_N.copy_(most_N + sums_2N[0].log());
        target_N.copy_(sums_2N[1]);
      }};
  return linear_cross_entropy(h_ND, weight_VD.value, labels_N, token_weights_N, {}, part);
}

at::Tensor vocabulary_logits(const at::Tensor& h_MD, const Parameter& weight_VD,
                             const ModelGroups& groups) {
  const auto logits = at::linear(h_MD, weight_VD.value);
  if (weight_VD.held.empty()) return logits;
  Parameter by_word;  // the logits of a word lie where its row of the weight does
  by_word.name = "logits";
  by_word.full_shape = {weight_VD.full_shape[0], h_MD.size(0)};
  by_word.placement = weight_VD.placement;
  by_word.held = weight_VD.held;
  return gather_whole(by_word, logits.t(), groups.tensor).t();
}

}  // namespace triptych

#include "kernels/linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/dispatch.h"
#include "kernels/linear_cross_entropy_cpu.h"
#include "kernels/meta_kernels.h"
#include "kernels/reference.h"

namespace triptych {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Results = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Results on_cpu(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
               const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh,
               bool want_dweight) {
  return (has_fast_cross_entropy(h, weight) ? fast_linear_cross_entropy
                                            : reference::linear_cross_entropy)(
      h, weight, labels, token_weights, logits_bytes, want_dh, want_dweight, nullptr);
}

Results anywhere(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
                 const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh,
                 bool want_dweight) {
  return reference::linear_cross_entropy(h, weight, labels, token_weights, logits_bytes, want_dh,
                                         want_dweight);
}

Results call(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& labels,
             const at::Tensor& token_weights, int64_t logits_bytes, bool want_dh, bool want_dweight,
             const VocabularyPart* part) {
  // A call back is nothing that an operator's schema can hold: a part goes past the dispatcher.
  if (part != nullptr && h.is_meta()) {
    return meta_linear_cross_entropy(h, weight, labels, token_weights, logits_bytes, want_dh,
                                     want_dweight, part);
  }
  if (part != nullptr) {
    const bool fast = h.device().is_cpu() && has_fast_cross_entropy(h, weight);
    return (fast ? fast_linear_cross_entropy : reference::linear_cross_entropy)(
        h, weight, labels, token_weights, logits_bytes, want_dh, want_dweight, part);
  }
  static const auto op =
      find_operator<Results(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&, int64_t, bool, bool)>("linear_cross_entropy");
  return op.call(h, weight, labels, token_weights, logits_bytes, want_dh, want_dweight);
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& h, const at::Tensor& weight,
                               const at::Tensor& labels, const at::Tensor& token_weights,
                               int64_t logits_bytes, bool want_dh, bool want_dweight,
                               const VocabularyPart* part) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [total, losses, dh, dweight] =
        call(h, weight, labels, token_weights, logits_bytes, want_dh, want_dweight, part);
    ctx->save_for_backward({dh, dweight});
    ctx->mark_non_differentiable({losses});
    return {total, losses};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto scaled = [&](const at::Tensor& x) {
      if (!x.defined()) return at::Tensor();
      // The usual incoming gradient is exactly one: the stored gradient goes on as it is.
      return grads[0].is_meta() || grads[0].item<double>() == 1 ? x
                                                                : x * grads[0].to(x.scalar_type());
    };
    return {scaled(saved[0]), scaled(saved[1]), {}, {}, {}, {}, {}, {}};
  }
};

CrossEntropy cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                           const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                           const LinearCrossEntropyOptions& options, const VocabularyPart* part) {
  const int64_t vocabulary = part == nullptr ? weight_VD.size(0) : part->size;
  require(h_ND.dim() == 2 && weight_VD.dim() == 2 && h_ND.size(1) == weight_VD.size(1),
          "cross entropy: h ", h_ND.sizes(), " and the weight ", weight_VD.sizes(),
          " must have the same last dim");
  require(h_ND.scalar_type() == weight_VD.scalar_type(), "cross entropy: h is ", h_ND.scalar_type(),
          ", the weight ", weight_VD.scalar_type());
  require(labels_N.dim() == 1 && labels_N.size(0) == h_ND.size(0),
          "cross entropy: ", labels_N.sizes(), " labels for h ", h_ND.sizes());
  require(
      labels_N.numel() == 0 || labels_N.is_meta() || labels_N.max().item<int64_t>() < vocabulary,
      "cross entropy: a label lies outside the vocabulary of ", vocabulary);
  const auto weights = token_weights_N.defined()
                           ? token_weights_N
                           : at::ones(labels_N.sizes(), h_ND.options().dtype(at::kFloat));
  require(weights.sizes() == labels_N.sizes(), "cross entropy: ", weights.sizes(),
          " token weights for ", labels_N.sizes(), " labels");
  const bool grad = at::GradMode::is_enabled();
  const auto out = LinearCrossEntropy::apply(h_ND, weight_VD, labels_N, weights,
                                             options.logits_bytes, grad && h_ND.requires_grad(),
                                             grad && weight_VD.requires_grad(), part);
  return {out[0], out[1]};
}

}  // namespace

CrossEntropy linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                  const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                                  const LinearCrossEntropyOptions& options) {
  return cross_entropy(h_ND, weight_VD, labels_N, token_weights_N, options, nullptr);
}

CrossEntropy linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                  const at::Tensor& labels_N, const at::Tensor& token_weights_N,
                                  const LinearCrossEntropyOptions& options,
                                  const VocabularyPart& part) {
  require(part.first >= 0 && part.first + weight_VD.size(0) <= part.size && part.join != nullptr,
          "cross entropy: words ", part.first, " to ", part.first + weight_VD.size(0),
          " are no part of a vocabulary of ", part.size, ", or nothing joins the parts");
  return cross_entropy(h_ND, weight_VD, labels_N, token_weights_N, options, &part);
}

// Gradients of the total come with it, where asked for; autograd is in the public function.
TORCH_LIBRARY_FRAGMENT(triptych, m) {
  m.def(
      "linear_cross_entropy(Tensor h, Tensor weight, Tensor labels, Tensor token_weights, int "
      "logits_bytes, bool want_dh, bool want_dweight) -> (Tensor, Tensor, Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy", anywhere);
}
TORCH_LIBRARY_IMPL(triptych, CPU, m) { m.impl("linear_cross_entropy", on_cpu); }

}  // namespace triptych

#include "kernels/embedding.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "base/error.h"

namespace triptych {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class EmbeddingRows : public torch::autograd::Function<EmbeddingRows> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& ids) {
    ctx->save_for_backward({ids});
    ctx->saved_data["sizes"] = weight.sizes().vec();
    return weight.index_select(0, ids.flatten()).view([&] {
      auto sizes = ids.sizes().vec();
      sizes.push_back(weight.size(1));
      return sizes;
    }());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const auto ids = ctx->get_saved_variables()[0].flatten();
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const auto dy = grads[0].reshape({-1, sizes[1]});
    const auto [rows, inverse, counts] =
        at::_unique2(ids, /*sorted=*/true, /*return_inverse=*/true);
    // Rows of equal id add up in fp32 and are rounded once.
    const auto wide = dy.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const auto sums = at::zeros({rows.size(0), sizes[1]}, dy.options().dtype(wide))
                          .index_add_(0, inverse, dy.to(wide));
    const auto options = dy.options().layout(at::kSparse);
    const auto values = sums.to(dy.scalar_type());
    auto gradient =
        dy.is_meta()  // no indices to check
            ? at::_sparse_coo_tensor_unsafe(rows.to(at::kMeta).unsqueeze(0), values, sizes, options)
            : at::sparse_coo_tensor(rows.unsqueeze(0), values, sizes, options);
    gradient._coalesced_(true);
    return {gradient, {}};
  }
};

}  // namespace

at::Tensor embedding_rows(const at::Tensor& weight_VD, const at::Tensor& ids) {
  require(weight_VD.dim() == 2 && ids.scalar_type() == at::kLong,
          "embedding: the table must be [V, D] and ids int64; table ", weight_VD.sizes(), ", ids ",
          ids.scalar_type());
  if (!ids.is_meta() && ids.numel() > 0) {
    const auto [least, greatest] = ids.aminmax();
    require(least.item<int64_t>() >= 0 && greatest.item<int64_t>() < weight_VD.size(0),
            "embedding: ids from ", least.item<int64_t>(), " to ", greatest.item<int64_t>(),
            " for a table of ", weight_VD.size(0), " rows");
  }
  return EmbeddingRows::apply(weight_VD, ids);
}

}  // namespace triptych

#include "kernels/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/kernels.h"
#include "kernels/dispatch.h"
#include "kernels/reference.h"

namespace triptych {
namespace {

using reference::Pair;
using reference::Triple;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const char* name, const at::Tensor& x, const at::Tensor& weight) {
  require(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1), name, ": x ",
          x.sizes(), " needs a weight of its last size, got ", weight.sizes());
  require(weight.scalar_type() == x.scalar_type(), name, ": x is ", x.scalar_type(),
          ", the weight is ", weight.scalar_type(), "; both must have one dtype");
}

Triple add_reference(const at::Tensor& x, const at::Tensor& r, const at::Tensor& weight,
                     double eps) {
  const auto sum = x + r;
  const auto [y, rstd] = reference::rms_norm(sum, weight, eps);
  return {sum, y, rstd};
}

// r undefined: the plain norm, and the first result is undefined.
Triple forward_cpu(const at::Tensor& x_, const at::Tensor& r_, const at::Tensor& weight_,
                   double eps) {
  const auto x = x_.contiguous(), weight = weight_.contiguous();
  const auto r = r_.defined() ? r_.contiguous() : r_;
  const int64_t D = x.size(-1), rows = D > 0 ? x.numel() / D : 0;
  const auto sum = r.defined() ? at::empty_like(x) : at::Tensor();
  const auto y = at::empty_like(x);
  const auto rstd = at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(at::kFloat));
  with_element_type(x, [&](auto element) {
    using T = decltype(element);
    const auto kernel = cpu::typed<T>(cpu::kernels()).rms_norm;
    at::parallel_for(0, rows, grain_rows(D), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * D;
      kernel(read<T>(x) + at, r.defined() ? read<T>(r) + at : nullptr, read<T>(weight),
             static_cast<float>(eps), end - begin, D, r.defined() ? write<T>(sum) + at : nullptr,
             write<T>(y) + at, write<float>(rstd) + begin);
    });
  });
  return {sum, y, rstd};
}

Pair rms_norm_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_cpu_kernel(x)) return reference::rms_norm(x, weight, eps);
  const auto [sum, y, rstd] = forward_cpu(x, {}, weight, eps);
  return {y, rstd};
}

Triple add_rms_norm_cpu(const at::Tensor& x, const at::Tensor& r, const at::Tensor& weight,
                        double eps) {
  return has_cpu_kernel(x) ? forward_cpu(x, r, weight, eps) : add_reference(x, r, weight, eps);
}

Pair backward_cpu(const at::Tensor& dy_, const at::Tensor& x_, const at::Tensor& weight_,
                  const at::Tensor& rstd, const std::optional<at::Tensor>& residual) {
  if (!has_cpu_kernel(x_)) return reference::rms_norm_backward(dy_, x_, weight_, rstd, residual);
  // dweight is summed per block of rows, then over blocks in order: independent of the threads.
  constexpr int64_t kBlockRows = 64;
  const auto dy = dy_.contiguous(), x = x_.contiguous(), weight = weight_.contiguous();
  const auto dsum = residual && residual->defined() ? residual->contiguous() : at::Tensor();
  const int64_t D = x.size(-1), rows = D > 0 ? x.numel() / D : 0;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const auto dx = at::empty_like(x);
  const auto partial = at::zeros({blocks, D}, x.options().dtype(at::kFloat));
  with_element_type(x, [&](auto element) {
    using T = decltype(element);
    const auto kernel = cpu::typed<T>(cpu::kernels()).rms_norm_backward;
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t row = block * kBlockRows, at = row * D;
        kernel(read<T>(dy) + at, dsum.defined() ? read<T>(dsum) + at : nullptr, read<T>(x) + at,
               read<T>(weight), read<float>(rstd) + row, std::min(kBlockRows, rows - row), D,
               write<T>(dx) + at, write<float>(partial) + block * D);
      }
    });
  });
  return {dx, partial.sum(0).to(weight.scalar_type())};
}

Pair call_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  static const auto op =
      find_operator<Pair(const at::Tensor&, const at::Tensor&, double)>("rms_norm");
  return op.call(x, weight, eps);
}
Triple call_add_rms_norm(const at::Tensor& x, const at::Tensor& r, const at::Tensor& weight,
                         double eps) {
  static const auto op =
      find_operator<Triple(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>(
          "add_rms_norm");
  return op.call(x, r, weight, eps);
}
Pair call_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                   const at::Tensor& rstd, const std::optional<at::Tensor>& residual) {
  static const auto op =
      find_operator<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         const std::optional<at::Tensor>&)>("rms_norm_backward");
  return op.call(dy, x, weight, rstd, residual);
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                               double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [y, rstd] = call_rms_norm(x, weight, eps);
    ctx->save_for_backward({x, weight, rstd});
    ctx->mark_non_differentiable({rstd});
    return {y, rstd};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [dx, dweight] = call_backward(grads[0], saved[0], saved[1], saved[2], std::nullopt);
    return {dx, dweight, {}};
  }
};

class AddRmsNormFunction : public torch::autograd::Function<AddRmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& r,
                               const at::Tensor& weight, double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [sum, y, rstd] = call_add_rms_norm(x, r, weight, eps);
    ctx->save_for_backward({sum, weight, rstd});
    ctx->mark_non_differentiable({rstd});
    ctx->set_materialize_grads(false);
    return {sum, y, rstd};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    if (!grads[1].defined()) return {grads[0], grads[0], {}, {}};  // only the sum was used
    const auto [dx, dweight] =
        call_backward(grads[1], saved[0], saved[1], saved[2],
                      grads[0].defined() ? std::optional(grads[0]) : std::nullopt);
    return {dx, dx, dweight, {}};
  }
};

Pair rms_norm_autograd(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto out = RmsNormFunction::apply(x, weight, eps);
  return {out[0], out[1]};
}
Triple add_rms_norm_autograd(const at::Tensor& x, const at::Tensor& r, const at::Tensor& weight,
                             double eps) {
  const auto out = AddRmsNormFunction::apply(x, r, weight, eps);
  return {out[0], out[1], out[2]};
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x_TD, const at::Tensor& weight_D, double eps) {
  check("rms_norm", x_TD, weight_D);
  return std::get<0>(call_rms_norm(x_TD, weight_D, eps));
}

AddRmsNorm add_rms_norm(const at::Tensor& x_TD, const at::Tensor& r_TD, const at::Tensor& weight_D,
                        double eps) {
  check("add_rms_norm", x_TD, weight_D);
  require(x_TD.sizes() == r_TD.sizes() && x_TD.scalar_type() == r_TD.scalar_type(),
          "add_rms_norm: x is ", x_TD.scalar_type(), " ", x_TD.sizes(), ", the summand is ",
          r_TD.scalar_type(), " ", r_TD.sizes(), "; both must be alike");
  auto [sum, y, rstd] = call_add_rms_norm(x_TD, r_TD, weight_D, eps);
  return {sum, y};
}

TORCH_LIBRARY_FRAGMENT(triptych, m) {
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> (Tensor, Tensor)");
  m.def("add_rms_norm(Tensor x, Tensor r, Tensor weight, float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rms_norm_backward(Tensor dy, Tensor x, Tensor weight, Tensor rstd, Tensor? residual) -> "
      "(Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) {
  m.impl("rms_norm", reference::rms_norm);
  m.impl("add_rms_norm", add_reference);
  m.impl("rms_norm_backward", reference::rms_norm_backward);
}
TORCH_LIBRARY_IMPL(triptych, CPU, m) {
  m.impl("rms_norm", rms_norm_cpu);
  m.impl("add_rms_norm", add_rms_norm_cpu);
  m.impl("rms_norm_backward", backward_cpu);
}
TORCH_LIBRARY_IMPL(triptych, Autograd, m) {
  m.impl("rms_norm", rms_norm_autograd);
  m.impl("add_rms_norm", add_rms_norm_autograd);
}

}  // namespace triptych

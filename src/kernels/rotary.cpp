#include "kernels/rotary.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "base/error.h"
#include "kernels/cpu/kernels.h"
#include "kernels/dispatch.h"
#include "kernels/reference.h"

namespace triptych {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  require(x.dim() == 3 && x.size(2) % 2 == 0, "rotary: x must be [T, H, K] with an even K, got ",
          x.sizes());
  require(cos.dim() == 2 && cos.size(0) == x.size(0) && cos.size(1) == x.size(2) &&
              sin.sizes() == cos.sizes(),
          "rotary: x ", x.sizes(), " needs tables [T, K], got cos ", cos.sizes(), ", sin ",
          sin.sizes());
  const auto table = cos.scalar_type();
  require(sin.scalar_type() == table && (table == x.scalar_type() || table == at::kFloat),
          "rotary: tables must both be float or x's ", x.scalar_type(), ", got ", table, " and ",
          sin.scalar_type());
}

bool fits(const at::Tensor& x, const at::Tensor& cos) {
  return has_cpu_kernel(x) &&
         (cos.scalar_type() == x.scalar_type() || cos.scalar_type() == at::kFloat);
}

// y is x itself or a tensor with a contiguous last dim; x likewise.
void rotate_cpu(const at::Tensor& x, const at::Tensor& cos_, const at::Tensor& sin_, bool inverse,
                const at::Tensor& y) {
  const int64_t T = x.size(0), H = x.size(1), K = x.size(2);
  const auto cos = cos_.contiguous(), sin = sin_.contiguous();
  const int64_t x_token = x.stride(0), x_head = x.stride(1), y_token = y.stride(0),
                y_head = y.stride(1);
  with_element_type(x, [&](auto element) {
    using E = decltype(element);
    const auto& table = cpu::typed<E>(cpu::kernels());
    const E* from = read<E>(x);
    E* to = write<E>(y);
    auto run = [&](auto kernel, const auto* c, const auto* s) {
      at::parallel_for(0, T, grain_rows(H * K), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          kernel(from + t * x_token, x_head, c + t * K, s + t * K, H, K, y_head, inverse,
                 to + t * y_token);
        }
      });
    };
    if (cos.scalar_type() == x.scalar_type()) {
      run(table.rotary, read<E>(cos), read<E>(sin));
    } else {
      run(table.rotary_fp32_tables, read<float>(cos), read<float>(sin));
    }
  });
}

at::Tensor rotary_cpu(const at::Tensor& x_, const at::Tensor& cos, const at::Tensor& sin,
                      bool inverse) {
  if (!fits(x_, cos)) return reference::rotary(x_, cos, sin, inverse);
  const auto x = x_.stride(2) == 1 ? x_ : x_.contiguous();
  auto y = at::empty(x.sizes(), x.options());
  rotate_cpu(x, cos, sin, inverse, y);
  return y;
}

at::Tensor call(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>(
          "rotary");
  return op.call(x, cos, sin, inverse);
}

class RotaryFunction : public torch::autograd::Function<RotaryFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, bool inverse) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["inverse"] = inverse;
    return call(x, cos, sin, inverse);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {call(grads[0], saved[0], saved[1], !ctx->saved_data["inverse"].toBool()), {}, {}, {}};
  }
};

at::Tensor rotary_autograd(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                           bool inverse) {
  return RotaryFunction::apply(x, cos, sin, inverse);
}

}  // namespace

at::Tensor rotary(const at::Tensor& x_THK, const at::Tensor& cos_TK, const at::Tensor& sin_TK) {
  check(x_THK, cos_TK, sin_TK);
  return call(x_THK, cos_TK, sin_TK, false);
}

RotatedQk rotary_qk(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& cos_TK,
                    const at::Tensor& sin_TK) {
  return {rotary(q_THK, cos_TK, sin_TK), rotary(k_TGK, cos_TK, sin_TK)};
}

at::Tensor& rotary_(at::Tensor& x_THK, const at::Tensor& cos_TK, const at::Tensor& sin_TK) {
  check(x_THK, cos_TK, sin_TK);
  if (x_THK.is_meta() && has_cpu_kernel(x_THK)) return x_THK;
  if (x_THK.is_cpu() && fits(x_THK, cos_TK) && x_THK.stride(2) == 1) {
    rotate_cpu(x_THK, cos_TK, sin_TK, false, x_THK);
  } else {
    x_THK.copy_(call(x_THK, cos_TK, sin_TK, false));
  }
  return x_THK;
}

RotatedQkv split_rotary(const at::Tensor& qkv_T3HK, const at::Tensor& cos_TK,
                        const at::Tensor& sin_TK) {
  require(qkv_T3HK.dim() == 4 && qkv_T3HK.size(1) == 3,
          "split_rotary: expected qkv of [T, 3, H, K], got ", qkv_T3HK.sizes());
  auto q = qkv_T3HK.select(1, 0), k = qkv_T3HK.select(1, 1);
  if (at::GradMode::is_enabled() && qkv_T3HK.requires_grad()) {
    return {rotary(q, cos_TK, sin_TK), rotary(k, cos_TK, sin_TK), qkv_T3HK.select(1, 2)};
  }
  return {rotary_(q, cos_TK, sin_TK), rotary_(k, cos_TK, sin_TK), qkv_T3HK.select(1, 2)};
}

TORCH_LIBRARY_FRAGMENT(triptych, m) {
  m.def("rotary(Tensor x, Tensor cos, Tensor sin, bool inverse) -> Tensor");
}
TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) { m.impl("rotary", reference::rotary); }
TORCH_LIBRARY_IMPL(triptych, CPU, m) { m.impl("rotary", rotary_cpu); }
TORCH_LIBRARY_IMPL(triptych, Autograd, m) { m.impl("rotary", rotary_autograd); }

}  // namespace triptych

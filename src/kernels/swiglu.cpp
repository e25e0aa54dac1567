#include "kernels/swiglu.h"

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

using reference::Pair;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of I numbers at a distance: [..., I] is one long row, half of a packed [.., 2I] is many.
struct Rows {
  at::Tensor tensor;
  int64_t count = 0, width = 0, stride = 0;
};

bool is_half_of_packed(const at::Tensor& x) {
  return x.dim() == 2 && x.stride(1) == 1 && x.stride(0) >= x.size(1);
}

Rows rows_of(const at::Tensor& x, bool flat) {
  if (flat) return {x.contiguous(), 1, x.numel(), 0};
  return {x, x.size(0), x.size(1), x.stride(0)};
}

// Runs body(offsets..., n) over all elements in parallel.
template <class Body>
void over_rows(const Rows& shape, Body&& body) {
  constexpr int64_t kPiece = 16384;
  if (shape.count == 1) {
    at::parallel_for(0, (shape.width + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
      body(0, begin * kPiece, std::min(end * kPiece, shape.width) - begin * kPiece);
    });
  } else {
    at::parallel_for(0, shape.count, grain_rows(shape.width), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(row, 0, shape.width);
    });
  }
}

bool flat_layout(std::initializer_list<at::Tensor> tensors) {
  for (const auto& x : tensors) {
    if (!x.is_contiguous() && is_half_of_packed(x)) {
      for (const auto& y : tensors) {
        if (!is_half_of_packed(y)) return true;
      }
      return false;
    }
  }
  return true;
}

at::Tensor swiglu_cpu(const at::Tensor& gate, const at::Tensor& up) {
  if (!has_cpu_kernel(gate)) return reference::swiglu(gate, up);
  const bool flat = flat_layout({gate, up});
  const auto y = at::empty(gate.sizes(), gate.options());
  const Rows g = rows_of(gate, flat), u = rows_of(up, flat), out = rows_of(y, flat);
  with_element_type(gate, [&](auto element) {
    using T = decltype(element);
    const auto kernel = cpu::typed<T>(cpu::kernels()).swiglu;
    over_rows(g, [&](int64_t row, int64_t at, int64_t n) {
      kernel(read<T>(g.tensor) + row * g.stride + at, read<T>(u.tensor) + row * u.stride + at, n,
             write<T>(out.tensor) + row * out.stride + at);
    });
  });
  return y;
}

void backward_into(const at::Tensor& dy, const at::Tensor& gate, const at::Tensor& up,
                   const at::Tensor& dgate, const at::Tensor& dup) {
  const bool flat = flat_layout({dy, gate, up, dgate, dup});
  const Rows d = rows_of(dy, flat), g = rows_of(gate, flat), u = rows_of(up, flat),
             dg = rows_of(dgate, flat), du = rows_of(dup, flat);
  with_element_type(gate, [&](auto element) {
    using T = decltype(element);
    const auto kernel = cpu::typed<T>(cpu::kernels()).swiglu_backward;
    over_rows(g, [&](int64_t row, int64_t at, int64_t n) {
      kernel(read<T>(d.tensor) + row * d.stride + at, read<T>(g.tensor) + row * g.stride + at,
             read<T>(u.tensor) + row * u.stride + at, n, write<T>(dg.tensor) + row * dg.stride + at,
             write<T>(du.tensor) + row * du.stride + at);
    });
  });
}

Pair swiglu_backward_cpu(const at::Tensor& dy, const at::Tensor& gate, const at::Tensor& up) {
  if (!has_cpu_kernel(gate)) return reference::swiglu_backward(dy, gate, up);
  auto dgate = at::empty(gate.sizes(), gate.options()), dup = at::empty(up.sizes(), up.options());
  backward_into(dy, gate, up, dgate, dup);
  return {dgate, dup};
}

// The gradient of a packed tensor is written as one tensor, so that one matrix product takes it.
at::Tensor packed_backward(const at::Tensor& dy, const at::Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  const auto [dgate, dup] = reference::swiglu_backward(dy, halves[0], halves[1]);
  return at::cat({dgate, dup}, -1);
}
at::Tensor packed_backward_cpu(const at::Tensor& dy_, const at::Tensor& gate_up_) {
  if (!has_cpu_kernel(gate_up_)) return packed_backward(dy_, gate_up_);
  const int64_t I = dy_.size(-1);
  const auto gate_up = gate_up_.contiguous().view({-1, 2 * I});
  const auto dy = dy_.contiguous().view({-1, I});
  const auto grad = at::empty_like(gate_up);
  backward_into(dy, gate_up.narrow(1, 0, I), gate_up.narrow(1, I, I), grad.narrow(1, 0, I),
                grad.narrow(1, I, I));
  return grad.view(gate_up_.sizes());
}

at::Tensor call(const at::Tensor& gate, const at::Tensor& up) {
  static const auto op = find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>("swiglu");
  return op.call(gate, up);
}
Pair call_backward(const at::Tensor& dy, const at::Tensor& gate, const at::Tensor& up) {
  static const auto op =
      find_operator<Pair(const at::Tensor&, const at::Tensor&, const at::Tensor&)>(
          "swiglu_backward");
  return op.call(dy, gate, up);
}
at::Tensor call_packed_backward(const at::Tensor& dy, const at::Tensor& gate_up) {
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>("swiglu_packed_backward");
  return op.call(dy, gate_up);
}

class SwigluFunction : public torch::autograd::Function<SwigluFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({gate, up});
    return call(gate, up);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [dgate, dup] = call_backward(grads[0], saved[0], saved[1]);
    return {dgate, dup};
  }
};

at::Tensor packed_forward(const at::Tensor& gate_up) {
  const int64_t I = gate_up.size(-1) / 2;
  const auto rows = gate_up.reshape({-1, 2 * I});
  auto shape = gate_up.sizes().vec();
  shape.back() = I;
  return call(rows.narrow(1, 0, I), rows.narrow(1, I, I)).view(shape);
}

class PackedFunction : public torch::autograd::Function<PackedFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({gate_up});
    return packed_forward(gate_up);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {call_packed_backward(grads[0], ctx->get_saved_variables()[0])};
  }
};

at::Tensor swiglu_autograd(const at::Tensor& gate, const at::Tensor& up) {
  return SwigluFunction::apply(gate, up);
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  require(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(), "swiglu: gate is ",
          gate.scalar_type(), " ", gate.sizes(), ", up is ", up.scalar_type(), " ", up.sizes(),
          "; both must be alike");
  return call(gate, up);
}

at::Tensor swiglu_packed(const at::Tensor& gate_up) {
  require(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0,
          "swiglu_packed: the last dim holds gate and up and must be even, got ", gate_up.sizes());
  return PackedFunction::apply(gate_up);
}

TORCH_LIBRARY_FRAGMENT(triptych, m) {
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def("swiglu_backward(Tensor dy, Tensor gate, Tensor up) -> (Tensor, Tensor)");
  m.def("swiglu_packed_backward(Tensor dy, Tensor gate_up) -> Tensor");
}
TORCH_LIBRARY_IMPL(triptych, CompositeExplicitAutograd, m) {
  m.impl("swiglu", reference::swiglu);
  m.impl("swiglu_backward", reference::swiglu_backward);
  m.impl("swiglu_packed_backward", packed_backward);
}
TORCH_LIBRARY_IMPL(triptych, CPU, m) {
  m.impl("swiglu", swiglu_cpu);
  m.impl("swiglu_backward", swiglu_backward_cpu);
  m.impl("swiglu_packed_backward", packed_backward_cpu);
}
TORCH_LIBRARY_IMPL(triptych, Autograd, m) { m.impl("swiglu", swiglu_autograd); }

}  // namespace triptych

#include <ATen/ATen.h>

#include "kernels/reference.h"

namespace triptych::reference {

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

Pair swiglu_backward(const at::Tensor& dy, const at::Tensor& gate, const at::Tensor& up) {
  return {at::silu_backward(dy * up, gate), dy * at::silu(gate)};
}

}  // namespace triptych::reference

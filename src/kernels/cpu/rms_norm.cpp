#include <cmath>

#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {

template <class T>
void rms_norm(const T* x, const T* residual, const T* weight, float eps, int64_t rows, int64_t D,
              T* sum_out, T* y, float* rstd) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * D;
    Float16x squares = {};
    for_groups(D, [&](int64_t i, auto lanes) {
      Float16x value = load(x + at + i, lanes);
      if (residual != nullptr) {
        value = rounded<T>(value + load(residual + at + i, lanes));
        store(sum_out + at + i, value, lanes);
      }
      squares += value * value;
    });
    const float r = 1.0f / std::sqrt(sum(squares) / static_cast<float>(D) + eps);
    rstd[row] = r;
    const T* source = (residual != nullptr ? sum_out : x) + at;  // still in the first-level cache
    for_groups(D, [&](int64_t i, auto lanes) {
      const Float16x normed = rounded<T>(load(source + i, lanes) * r);
      store(y + at + i, normed * load(weight + i, lanes), lanes);
    });
  }
}

template <class T>
void rms_norm_backward(const T* dy, const T* residual_grad, const T* x, const T* weight,
                       const float* rstd, int64_t rows, int64_t D, T* dx, float* dweight) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * D;
    const float r = rstd[row];
    Float16x dots = {};
    for_groups(D, [&](int64_t i, auto lanes) {
      const Float16x g = load(dy + at + i, lanes), normed = load(x + at + i, lanes) * r;
      dots += g * load(weight + i, lanes) * normed;
      store(dweight + i, load(dweight + i, lanes) + g * rounded<T>(normed), lanes);
    });
    const float mean = sum(dots) / static_cast<float>(D);
    for_groups(D, [&](int64_t i, auto lanes) {
      const Float16x g = load(dy + at + i, lanes) * load(weight + i, lanes);
      Float16x grad = (g - load(x + at + i, lanes) * r * mean) * r;
      if (residual_grad != nullptr) grad += load(residual_grad + at + i, lanes);
      store(dx + at + i, grad, lanes);
    });
  }
}

template void rms_norm(const Bf16*, const Bf16*, const Bf16*, float, int64_t, int64_t, Bf16*, Bf16*,
                       float*);
template void rms_norm(const float*, const float*, const float*, float, int64_t, int64_t, float*,
                       float*, float*);
template void rms_norm_backward(const Bf16*, const Bf16*, const Bf16*, const Bf16*, const float*,
                                int64_t, int64_t, Bf16*, float*);
template void rms_norm_backward(const float*, const float*, const float*, const float*,
                                const float*, int64_t, int64_t, float*, float*);

}  // namespace triptych::cpu::TRIPTYCH_ISA

#include <cmath>

#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {

template <class T>
void rms_norm(const T* x, const T* residual, const T* weight, float eps, int64_t rows, int64_t D,
              T* sum_out, T* y, float* rstd) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * D;
    Float16x squares = {};
    for (int64_t i = 0; i < D; i += kLanes) {
      Float16x value = load(x + at + i, D - i);
      if (residual != nullptr) {
        value = rounded<T>(value + load(residual + at + i, D - i));
        store(sum_out + at + i, value, D - i);
      }
      squares += value * value;
    }
    const float r = 1.0f / std::sqrt(sum(squares) / static_cast<float>(D) + eps);
    rstd[row] = r;
    const T* source = (residual != nullptr ? sum_out : x) + at;  // still in the first-level cache
    for (int64_t i = 0; i < D; i += kLanes) {
      const Float16x normed = rounded<T>(load(source + i, D - i) * r);
      store(y + at + i, normed * load(weight + i, D - i), D - i);
    }
  }
}

template <class T>
void rms_norm_backward(const T* dy, const T* residual_grad, const T* x, const T* weight,
                       const float* rstd, int64_t rows, int64_t D, T* dx, float* dweight) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * D;
    const float r = rstd[row];
    Float16x dots = {};
    for (int64_t i = 0; i < D; i += kLanes) {
      const Float16x g = load(dy + at + i, D - i), normed = load(x + at + i, D - i) * r;
      dots += g * load(weight + i, D - i) * normed;
      store(dweight + i, load(dweight + i, D - i) + g * rounded<T>(normed), D - i);
    }
    const float mean = sum(dots) / static_cast<float>(D);
    for (int64_t i = 0; i < D; i += kLanes) {
      const Float16x g = load(dy + at + i, D - i) * load(weight + i, D - i);
      Float16x grad = (g - load(x + at + i, D - i) * r * mean) * r;
      if (residual_grad != nullptr) grad += load(residual_grad + at + i, D - i);
      store(dx + at + i, grad, D - i);
    }
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

#pragma once

// The CPU kernels that exist once per instruction set, as a table chosen at run time. They work on
// plain memory and one thread's share; the operators split the work and check the arguments.

#include <cstdint>

#include "kernels/cpu/bf16.h"

namespace triptych::cpu {

/// Coefficients of one AdamW step, in the order of operations of torch.optim.AdamW.
struct AdamWCoefficients {
  float decay;  ///< 1 - learning_rate * weight_decay
  float one_minus_beta1;
  float beta2, one_minus_beta2;
  float inverse_sqrt_correction2;
  float eps;
  float step_size;  ///< learning_rate / (1 - beta1^t)
  float grad_scale;
};

/// Where the fp32 master of an AdamW range lives; exactly one form is set.
struct AdamWRange {
  float* master = nullptr;  ///< fp32 master, with or without a bf16 weight to write
  Bf16* weight = nullptr;   ///< bf16 weight; with `low` it is the upper half of the master
  int16_t* low = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
};

template <class T>
struct TypedKernels {
  /// Rows of D; `residual` and `sum` may be null (plain norm).
  void (*rms_norm)(const T* x, const T* residual, const T* weight, float eps, int64_t rows,
                   int64_t D, T* sum, T* y, float* rstd);
  /// Adds to dweight [D] fp32; `residual_grad` may be null.
  void (*rms_norm_backward)(const T* dy, const T* residual_grad, const T* x, const T* weight,
                            const float* rstd, int64_t rows, int64_t D, T* dx, float* dweight);
  /// One token's heads, K numbers each; head h of x at x + h * stride, of y at y + h * K.
  void (*rotary)(const T* x, int64_t stride, const T* cos, const T* sin, int64_t heads, int64_t K,
                 int64_t y_stride, bool inverse, T* y);
  void (*rotary_fp32_tables)(const T* x, int64_t stride, const float* cos, const float* sin,
                             int64_t heads, int64_t K, int64_t y_stride, bool inverse, T* y);
  void (*swiglu)(const T* gate, const T* up, int64_t n, T* y);
  void (*swiglu_backward)(const T* dy, const T* gate, const T* up, int64_t n, T* dgate, T* dup);
  /// grad may be null: a gradient of zero.
  void (*adamw)(const T* grad, const AdamWRange& range, int64_t n, const AdamWCoefficients& c);
  double (*sum_of_squares)(const T* x, int64_t n);
  void (*accumulate)(const T* x, int64_t n, float* sum);
};

struct Kernels {
  TypedKernels<Bf16> bf16;
  TypedKernels<float> fp32;
};

template <class T>
const TypedKernels<T>& typed(const Kernels& kernels) {
  if constexpr (sizeof(T) == sizeof(Bf16)) {
    return kernels.bf16;
  } else {
    return kernels.fp32;
  }
}

enum class Isa { kPortable, kAvx512 };

/// What this CPU runs, lowered by the environment variable TRIPTYCH_CPU=portable (for tests).
Isa isa();
/// The table for isa().
const Kernels& kernels();

namespace portable {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

}  // namespace triptych::cpu

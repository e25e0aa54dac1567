#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {
namespace {

template <class T>
constexpr TypedKernels<T> table() {
  return {rms_norm<T>,  rms_norm_backward<T>, rotary<T, T>, rotary<T, float>,
          swiglu<T>,    swiglu_backward<T>,   adamw<T>,     sum_of_squares<T>,
          accumulate<T>};
}

}  // namespace

extern const Kernels kKernels{table<Bf16>(), table<float>()};

}  // namespace triptych::cpu::TRIPTYCH_ISA

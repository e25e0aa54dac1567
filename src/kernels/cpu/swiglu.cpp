#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {

template <class T>
void swiglu(const T* gate, const T* up, int64_t n, T* y) {
  for_groups(n, [&](int64_t i, auto lanes) {
    const Float16x g = load(gate + i, lanes);
    store(y + i, rounded<T>(g / (1.0f + exp(-g))) * load(up + i, lanes), lanes);
  });
}

template <class T>
void swiglu_backward(const T* dy, const T* gate, const T* up, int64_t n, T* dgate, T* dup) {
  for_groups(n, [&](int64_t i, auto lanes) {
    const Float16x g = load(gate + i, lanes), u = load(up + i, lanes), d = load(dy + i, lanes);
    const Float16x sigmoid = 1.0f / (1.0f + exp(-g));
    store(dup + i, d * rounded<T>(g * sigmoid), lanes);
    store(dgate + i, rounded<T>(d * u) * sigmoid * (1.0f + g * (1.0f - sigmoid)), lanes);
  });
}

template void swiglu(const Bf16*, const Bf16*, int64_t, Bf16*);
template void swiglu(const float*, const float*, int64_t, float*);
template void swiglu_backward(const Bf16*, const Bf16*, const Bf16*, int64_t, Bf16*, Bf16*);
template void swiglu_backward(const float*, const float*, const float*, int64_t, float*, float*);

}  // namespace triptych::cpu::TRIPTYCH_ISA

#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {

// Table is T (each of the three operations rounds to it) or float (one rounding at the end).
// May work in place: both halves are read before they are written.
template <class T, class Table>
void rotary(const T* x, int64_t stride, const Table* cos, const Table* sin, int64_t heads,
            int64_t K, int64_t y_stride, bool inverse, T* y) {
  const int64_t half = K / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  for (int64_t h = 0; h < heads; ++h, x += stride, y += y_stride) {
    for_groups(half, [&](int64_t i, auto n) {
      const Float16x a = load(x + i, n), b = load(x + half + i, n);
      const Float16x first =
          rounded<Table>(a * load(cos + i, n)) - rounded<Table>(b * (load(sin + i, n) * sign));
      const Float16x second = rounded<Table>(b * load(cos + half + i, n)) +
                              rounded<Table>(a * (load(sin + half + i, n) * sign));
      store(y + i, first, n);
      store(y + half + i, second, n);
    });
  }
}

template void rotary(const Bf16*, int64_t, const Bf16*, const Bf16*, int64_t, int64_t, int64_t,
                     bool, Bf16*);
template void rotary(const Bf16*, int64_t, const float*, const float*, int64_t, int64_t, int64_t,
                     bool, Bf16*);
template void rotary(const float*, int64_t, const float*, const float*, int64_t, int64_t, int64_t,
                     bool, float*);

}  // namespace triptych::cpu::TRIPTYCH_ISA

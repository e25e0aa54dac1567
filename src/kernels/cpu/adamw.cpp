#include "kernels/cpu/elementwise.h"

namespace triptych::cpu::TRIPTYCH_ISA {
namespace {

using Short16x = int16_t __attribute__((vector_size(32)));

template <class T, class E>
inline T load_raw(const E* p, Full) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
template <class T, class E>
inline T load_raw(const E* p, int64_t n) {
  T x = {};
  std::memcpy(&x, p, n * sizeof(E));
  return x;
}
template <class T, class E>
inline void store_raw(E* p, T x, Full) {
  std::memcpy(p, &x, sizeof x);
}
template <class T, class E>
inline void store_raw(E* p, T x, int64_t n) {
  std::memcpy(p, &x, n * sizeof(E));
}

template <class Lanes>
inline Float16x join(const Bf16* weight, const int16_t* low, Lanes lanes) {
  const auto upper = load_raw<Half16x>(weight, lanes);
  const auto lower = load_raw<Short16x>(low, lanes);
  return bits_as<Float16x>((__builtin_convertvector(upper, Uint16x) << 16) +
                           bits_as<Uint16x>(__builtin_convertvector(lower, Int16x)));
}

// Rounds ties away from zero so that the rest always fits a signed 16-bit number. A NaN whose
// payload would carry into the sign becomes another NaN.
template <class Lanes>
inline void split(Float16x master, Bf16* weight, int16_t* low, Lanes lanes) {
  auto bits = bits_as<Uint16x>(master);
  const Uint16x overflow = bits_as<Uint16x>((bits & 0x7fffffffu) >= 0x7fff8000u);
  bits = (bits & ~overflow) | (((bits & 0x80000000u) | 0x7fc00000u) & overflow);
  const auto upper = __builtin_convertvector((bits + 0x8000u) >> 16, Half16x);
  const auto lower = __builtin_convertvector(bits & 0xffffu, Half16x);
  store_raw(weight, upper, lanes);
  store_raw(low, lower, lanes);
}

inline Float16x square_root(Float16x x) {
  for (int64_t i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

enum class Master { kFp32, kFp32WithWeight, kSplit };

template <Master kMaster, bool kHasGrad, class T>
void update(const T* grad, const AdamWRange range, int64_t n, const AdamWCoefficients c) {
  for_groups(n, [=](int64_t i, auto lanes) {
    Float16x g = {};
    if constexpr (kHasGrad) g = load(grad + i, lanes) * c.grad_scale;
    Float16x w;
    if constexpr (kMaster == Master::kSplit) {
      w = join(range.weight + i, range.low + i, lanes);
    } else {
      w = load(range.master + i, lanes);
    }
    w *= c.decay;
    Float16x m = load(range.exp_avg + i, lanes), v = load(range.exp_avg_sq + i, lanes);
    m += (g - m) * c.one_minus_beta1;
    v = v * c.beta2 + (g * g) * c.one_minus_beta2;
    store(range.exp_avg + i, m, lanes);
    store(range.exp_avg_sq + i, v, lanes);
    w -= c.step_size * (m / (square_root(v) * c.inverse_sqrt_correction2 + c.eps));
    if constexpr (kMaster == Master::kSplit) {
      split(w, range.weight + i, range.low + i, lanes);
    } else {
      store(range.master + i, w, lanes);
      if constexpr (kMaster == Master::kFp32WithWeight) store(range.weight + i, w, lanes);
    }
  });
}

template <Master kMaster, class T>
void update(const T* grad, const AdamWRange& range, int64_t n, const AdamWCoefficients& c) {
  if (grad != nullptr) {
    update<kMaster, true>(grad, range, n, c);
  } else {
    update<kMaster, false>(grad, range, n, c);
  }
}

}  // namespace

template <class T>
void adamw(const T* grad, const AdamWRange& range, int64_t n, const AdamWCoefficients& c) {
  if (range.low != nullptr) {
    update<Master::kSplit>(grad, range, n, c);
  } else if (range.weight != nullptr) {
    update<Master::kFp32WithWeight>(grad, range, n, c);
  } else {
    update<Master::kFp32>(grad, range, n, c);
  }
}

template <class T>
double sum_of_squares(const T* x, int64_t n) {
  using Double8x = double __attribute__((vector_size(64)));
  using Float8x = float __attribute__((vector_size(32)));
  Double8x even = {}, odd = {};
  for_groups(n, [&](int64_t i, auto lanes) {
    const Float16x value = load(x + i, lanes);
    Float8x halves[2];
    std::memcpy(halves, &value, sizeof halves);
    const auto a = __builtin_convertvector(halves[0], Double8x);
    const auto b = __builtin_convertvector(halves[1], Double8x);
    even += a * a;
    odd += b * b;
  });
  double total = 0;
  for (int64_t lane = 0; lane < 8; ++lane) total += even[lane] + odd[lane];
  return total;
}

template <class T>
void accumulate(const T* x, int64_t n, float* sum) {
  for_groups(n, [&](int64_t i, auto lanes) {
    store(sum + i, load(sum + i, lanes) + load(x + i, lanes), lanes);
  });
}

template void adamw(const Bf16*, const AdamWRange&, int64_t, const AdamWCoefficients&);
template void adamw(const float*, const AdamWRange&, int64_t, const AdamWCoefficients&);
template double sum_of_squares(const Bf16*, int64_t);
template double sum_of_squares(const float*, int64_t);
template void accumulate(const Bf16*, int64_t, float*);
template void accumulate(const float*, int64_t, float*);

}  // namespace triptych::cpu::TRIPTYCH_ISA

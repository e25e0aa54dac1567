#pragma once

// Sixteen floats at a time with the compiler's vector types. Every file that includes this is
// compiled once for each instruction set (TRIPTYCH_ISA names the namespace); lanes and the order of
// sums are the same in all, and contraction into fused multiply-adds is off, so the results are
// too.

#include <cstdint>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "kernels/cpu/bf16.h"

#ifndef TRIPTYCH_ISA
#define TRIPTYCH_ISA portable
#endif

namespace triptych::cpu::TRIPTYCH_ISA {
namespace {

constexpr int64_t kLanes = 16;
using Float16x = float __attribute__((vector_size(64)));
using Int16x = int32_t __attribute__((vector_size(64)));
using Uint16x = uint32_t __attribute__((vector_size(64)));
using Half16x = uint16_t __attribute__((vector_size(32)));

inline Float16x splat(float value) { return value - Float16x{}; }

template <class To, class From>
inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline Float16x widen(Half16x half) {
  return bits_as<Float16x>(__builtin_convertvector(half, Uint16x) << 16);
}
// To nearest, ties to even, NaN to the quiet NaN: what ATen's conversion does.
inline Half16x narrow(Float16x x) {
#ifdef __AVX512BF16__
  return (Half16x)_mm512_cvtneps_pbh((__m512)x);  // the same but for denormals, which become zero
#else
  const auto bits = bits_as<Uint16x>(x);
  const Uint16x rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Uint16x is_nan = bits_as<Uint16x>(x != x);
  return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), Half16x);
#endif
}

inline Float16x load(const float* p) {
  Float16x x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline Float16x load(const Bf16* p) {
  Half16x half;
  std::memcpy(&half, p, sizeof half);
  return widen(half);
}
inline void store(float* p, Float16x x) { std::memcpy(p, &x, sizeof x); }
inline void store(Bf16* p, Float16x x) {
  const auto half = narrow(x);
  std::memcpy(p, &half, sizeof half);
}

// How many lanes of a group count: all of them, or the first n, the others being zero.
struct Full {};

template <class T>
inline Float16x load(const T* p, Full) {
  return load(p);
}
template <class T>
inline Float16x load(const T* p, int64_t n) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, p, n * sizeof(T));
  return load(buffer);
}
template <class T>
inline void store(T* p, Float16x x, Full) {
  store(p, x);
}
template <class T>
inline void store(T* p, Float16x x, int64_t n) {
  T buffer[kLanes];
  store(buffer, x);
  std::memcpy(p, buffer, n * sizeof(T));
}

// body(i, lanes) for every group of [0, n); the last, partial one is compiled apart, so that the
// loop has no branches.
template <class Body>
inline void for_groups(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, n - i);
}

// The value that storing as T and loading again gives.
template <class T>
inline Float16x rounded(Float16x x) {
  if constexpr (sizeof(T) == sizeof(Bf16)) return widen(narrow(x));
  return x;
}

inline float sum(Float16x x) {  // a fixed tree
  float a[kLanes];
  std::memcpy(a, &x, sizeof a);
  for (int64_t step = 8; step > 0; step /= 2) {
    for (int64_t i = 0; i < step; ++i) a[i] += a[i + step];
  }
  return a[0];
}

inline Float16x select(Int16x mask, Float16x yes, Float16x no) {
  return bits_as<Float16x>((bits_as<Int16x>(yes) & mask) | (bits_as<Int16x>(no) & ~mask));
}

// Within 2 units in the last place; 0 below -87.3, infinity above 88.7.
inline Float16x exp(Float16x x) {
  const Float16x magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Float16x bounded =
      select(x < -87.33654f, splat(-87.33654f), select(x > 88.37f, splat(88.37f), x));
  const Float16x n = (bounded * 1.44269504f + magic) - magic;
  const Float16x r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Float16x p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const auto exponent = (__builtin_convertvector(n, Int16x) + 127) << 23;
  const Float16x y = p * bits_as<Float16x>(exponent);
  return select(x < -87.33654f, Float16x{},
                select(x > 88.72f, splat(__builtin_inff()), select(x != x, x, y)));
}

}  // namespace
}  // namespace triptych::cpu::TRIPTYCH_ISA

#include "base/random.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace triptych {
namespace {

/// The finalizer of SplitMix64, a bijection of 64 bits.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint32_t low_word(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t high_word(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

}  // namespace

uint32x4 philox(const uint32x4& counter, const std::array<uint32_t, 2>& key) {
  uint32x4 x = counter;
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * x[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * x[2];
    x = {high_word(p1) ^ x[1] ^ k0, low_word(p1), high_word(p0) ^ x[3] ^ k1, low_word(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

std::array<uint32_t, 2> philox_key(const RandomKey& key) {
  // For one stream a bijection of the seed; streams differ by a second, unrelated mixing.
  const uint64_t k = mix(key.seed ^ mix(uint64_t{static_cast<uint32_t>(key.stream)} + 1));
  return {low_word(k), high_word(k)};
}

uint32x4 philox(const RandomKey& key, uint64_t low, uint64_t high) {
  return philox({low_word(low), high_word(low), low_word(high), high_word(high)}, philox_key(key));
}

std::array<double, 4> normals_from_bits(const uint32x4& bits) {
  std::array<double, 4> z{};
  for (size_t pair = 0; pair < 4; pair += 2) {
    const double u = (bits[pair] + 0.5) * 0x1p-32;  // never 0: the largest |z| is 6.66
    const double radius = std::sqrt(-2 * std::log(u));
    const double angle = 2 * std::numbers::pi * (bits[pair + 1] * 0x1p-32);
    z[pair] = radius * std::cos(angle);
    z[pair + 1] = radius * std::sin(angle);
  }
  return z;
}

float uniform(const RandomKey& key, uint64_t index, uint64_t high) {
  return uniform_from_bits(philox(key, index / 4, high)[index % 4]);
}

double normal(const RandomKey& key, uint64_t index, uint64_t high) {
  return normals_from_bits(philox(key, index / 4, high))[index % 4];
}

void fill_uniform(std::span<float> out, const RandomKey& key, uint64_t first, uint64_t high) {
  uint32x4 bits{};
  for (uint64_t i = 0; i < out.size(); ++i) {
    const uint64_t place = first + i;
    if (i == 0 || place % 4 == 0) bits = philox(key, place / 4, high);
    out[i] = uniform_from_bits(bits[place % 4]);
  }
}

void fill_normal(std::span<float> out, const RandomKey& key, uint64_t first, uint64_t high) {
  std::array<double, 4> block{};
  for (uint64_t i = 0; i < out.size(); ++i) {
    const uint64_t place = first + i;
    if (i == 0 || place % 4 == 0) block = normals_from_bits(philox(key, place / 4, high));
    out[i] = static_cast<float>(block[place % 4]);
  }
}

uint64_t permute(uint64_t index, uint64_t size, const RandomKey& key, uint64_t high) {
  require(index < size, "permute: index ", index, " must be below the size ", size);
  if (size == 1) return 0;
  // Two halves of `left` and `right` bits; the domain is at most twice the size, so the walk takes
  // two steps on average. With odd numbers of bits the halves' widths swap in every round.
  const int bits = std::bit_width(size - 1);
  const int left_bits = bits / 2, right_bits = bits - left_bits;
  uint64_t x = index;
  do {
    int a_bits = left_bits, b_bits = right_bits;
    uint64_t a = x >> right_bits, b = x & ((uint64_t{1} << right_bits) - 1);
    for (uint64_t round = 0; round < 8; ++round) {
      const uint32x4 f = philox(key, b | (round << 33), high);
      const uint64_t mask = (uint64_t{1} << a_bits) - 1;
      const uint64_t next = a ^ ((f[0] | (uint64_t{f[1]} << 32)) & mask);
      a = b;
      b = next;
      std::swap(a_bits, b_bits);
    }
    x = (a << b_bits) | b;
  } while (x >= size);
  return x;
}

}  // namespace triptych

#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace triptych {

/// What a random number is for. Numbers of different streams are independent; the values are part
/// of the result of a run, so they are only ever added to.
enum class RandomStream : uint32_t {
  kInit = 0,
  kNoise = 1,
  kTimestep = 2,
  kDropout = 3,
  kLoraDropout = 4,
  kCfgDrop = 5,
  kShuffle = 6,
  kStochasticRounding = 7,
  kLoraInit = 8,
  kDataMix = 9,
  kDropPath = 10,
  kSampling = 11,
};

/// Names a sequence of random numbers. There is no state: a number is a function of the key and its
/// place, so any rank, thread or resumed run draws the same one.
struct RandomKey {
  uint64_t seed = 0;
  RandomStream stream = RandomStream::kInit;
};

using uint32x4 = std::array<uint32_t, 4>;

/// Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
/// 128 random bits for a 128-bit counter and a 64-bit key.
uint32x4 philox(const uint32x4& counter, const std::array<uint32_t, 2>& key);

/// The 64-bit Philox key of a seed and stream; what a kernel needs to draw the same numbers.
std::array<uint32_t, 2> philox_key(const RandomKey& key);

/// 128 random bits at place (low, high). A convention for use with samples: `low` counts inside the
/// draw (element / 4), `high` says which draw (sample index, or a hash of a parameter's name).
uint32x4 philox(const RandomKey& key, uint64_t low, uint64_t high = 0);

/// 24 random bits as a number in [0, 1): exact in fp32.
constexpr float uniform_from_bits(uint32_t bits) {
  return static_cast<float>(bits >> 8) * 0x1p-24f;
}

/// Four standard normal numbers by Box-Muller in double: (0, 1) and (2, 3) are the pairs.
std::array<double, 4> normals_from_bits(const uint32x4& bits);

/// Element `index` of the sequence (key, high), in [0, 1): word index % 4 of block index / 4.
float uniform(const RandomKey& key, uint64_t index, uint64_t high = 0);
double normal(const RandomKey& key, uint64_t index, uint64_t high = 0);

/// out[i] = element first + i of the same sequences.
void fill_uniform(std::span<float> out, const RandomKey& key, uint64_t first, uint64_t high = 0);
void fill_normal(std::span<float> out, const RandomKey& key, uint64_t first, uint64_t high = 0);

/// Place `index` of a pseudo-random permutation of [0, size) that is named by (key, high); `high`
/// is the epoch, say. Needs no memory: a Feistel network over the next power of two, walked until
/// it falls inside. @throws Error unless index < size.
uint64_t permute(uint64_t index, uint64_t size, const RandomKey& key, uint64_t high = 0);

}  // namespace triptych

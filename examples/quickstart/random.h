#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace quickstart {

/// Random choices that come out the same with every standard library: the engine's numbers are
/// fixed by the standard, the library's distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  /// One of 0 .. count - 1.
  int below(int count) { return static_cast<int>(engine_() % static_cast<uint64_t>(count)); }

  /// In [low, high).
  double between(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11U) * 0x1p-53;
  }

  template <class Container>
  const auto& pick(const Container& values) {
    return values[static_cast<size_t>(below(static_cast<int>(std::size(values))))];
  }

  template <class T>
  void shuffle(std::span<T> values) {
    for (size_t last = values.size(); last > 1; --last) {
      std::swap(values[last - 1], values[static_cast<size_t>(below(static_cast<int>(last)))]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace quickstart

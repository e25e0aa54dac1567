#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace triptych {

/// XXH3 with 64 bits and seed 0: cache keys, change detection, checksums of checkpoints.
uint64_t xxh3_64(std::span<const std::byte> bytes);
uint64_t xxh3_64(std::string_view text);

/// The same over pieces that come one after another.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(Xxh3&&) noexcept;
  Xxh3& operator=(Xxh3&&) noexcept;
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// CRC-32C (Castagnoli), with the processor's instruction where there is one. `before` is the value
/// of the bytes that came earlier: crc32c(ab) == crc32c(b, crc32c(a)).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);
uint32_t crc32c(std::string_view text, uint32_t before = 0);

/// The table version of the same, for machines without the instruction; always there for tests.
uint32_t crc32c_portable(std::span<const std::byte> bytes, uint32_t before = 0);

/// A rotated and shifted CRC, as record files store it, so that the CRC of bytes that hold a CRC is
/// not special.
constexpr uint32_t crc32c_masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u; }

/// Sixteen lower-case hexadecimal digits.
std::string hex64(uint64_t value);

}  // namespace triptych

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace triptych {

/// How parameters lie one behind the other in buckets. Torch-free arithmetic.
struct FlatLayout {
  static constexpr int64_t kAlignment = 64;  ///< elements; where each parameter begins

  struct Slot {
    size_t parameter = 0;  ///< index into the lengths
    int64_t offset = 0;    ///< of its first element in the bucket
    int64_t length = 0;
  };
  struct Bucket {
    std::vector<Slot> slots;
    int64_t elements = 0;  ///< with padding: a multiple of lcm(ranks, 128)
  };
  std::vector<Bucket> buckets;
};

/// Lays parameters out in the order given; a bucket is closed once it holds `bucket_elements`.
FlatLayout plan_buckets(std::span<const int64_t> lengths, int64_t bucket_elements, int64_t ranks);

/// What of a slot falls into elements [begin, end) of its bucket.
struct SlotPart {
  int64_t in_parameter = 0;  ///< first element, counted in the parameter
  int64_t in_range = 0;      ///< first element, counted from `begin`
  int64_t length = 0;        ///< 0: nothing
};
SlotPart intersect(const FlatLayout::Slot& slot, int64_t begin, int64_t end);

}  // namespace triptych

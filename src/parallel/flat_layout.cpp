#include "parallel/flat_layout.h"

#include <algorithm>
#include <numeric>

namespace triptych {

namespace {
int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
}  // namespace

FlatLayout plan_buckets(std::span<const int64_t> lengths, int64_t bucket_elements, int64_t ranks) {
  const int64_t unit = std::lcm(ranks, int64_t{128});
  FlatLayout layout;
  FlatLayout::Bucket bucket;
  const auto close = [&] {
    bucket.elements = round_up(bucket.elements, unit);
    layout.buckets.push_back(std::move(bucket));
    bucket = {};
  };
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int64_t offset = round_up(bucket.elements, FlatLayout::kAlignment);
    bucket.slots.push_back({i, offset, lengths[i]});
    bucket.elements = offset + lengths[i];
    if (bucket.elements >= bucket_elements) close();
  }
  if (!bucket.slots.empty()) close();
  return layout;
}

SlotPart intersect(const FlatLayout::Slot& slot, int64_t begin, int64_t end) {
  const int64_t from = std::max(begin, slot.offset);
  const int64_t to = std::min(end, slot.offset + slot.length);
  if (from >= to) return {};
  return {from - slot.offset, from - begin, to - from};
}

}  // namespace triptych

#include <algorithm>
#include <bit>

#include "insight/trace_builder.h"

namespace triptych::insight {
namespace {

// The finest level has about this many events a bucket; finer views read the events themselves.
constexpr int64_t kEventsPerBucket = 8;
constexpr uint32_t kFinestShift = 10;

/// Collects the buckets of one level in order.
class LevelWriter {
 public:
  LevelWriter(TraceImage& image, uint32_t shift) : image_(image), shift_(shift) {
    first_ = image.buckets.size();
  }

  /// An event that starts at `begin` (ns since the trace's begin) and lasts `dur`.
  void add(int64_t begin, int64_t dur, uint32_t event) {
    const auto first = static_cast<uint32_t>(begin >> shift_);
    const auto last = static_cast<uint32_t>((begin + std::max<int64_t>(dur, 1) - 1) >> shift_);
    for (uint32_t b = first; b <= last; ++b) {
      const int64_t bucket_begin = static_cast<int64_t>(b) << shift_;
      const int64_t bucket_end = bucket_begin + (int64_t{1} << shift_);
      const int64_t part = std::min(begin + dur, bucket_end) - std::max(begin, bucket_begin);
      merge(b, event, b == first ? 1 : 0, part, part);
    }
  }
  void merge(uint32_t index, uint32_t event, uint32_t events, int64_t longest_part,
             int64_t covered) {
    if (image_.buckets.size() == first_ || image_.buckets.back().index < index) {
      image_.buckets.push_back({index, event, 0, 0});
      longest_ = -1;
      covered_ = 0;
    }
    auto& bucket = image_.buckets.back();
    bucket.events += events;
    if (longest_part > longest_) {
      longest_ = longest_part;
      bucket.longest = event;
    }
    covered_ += covered;
    bucket.covered = std::min(1.0F, static_cast<float>(static_cast<double>(covered_) /
                                                       static_cast<double>(int64_t{1} << shift_)));
  }
  Level finish() const {
    return {shift_, static_cast<uint32_t>(image_.buckets.size() - first_), first_};
  }

 private:
  TraceImage& image_;
  uint32_t shift_;
  size_t first_;
  int64_t longest_ = -1, covered_ = 0;
};

void build_row(TraceImage& image, Row& row) {
  row.first_level = static_cast<uint32_t>(image.levels.size());
  if (row.num_events < 64) return;  // read directly
  const int64_t origin = image.facts.begin_ns;
  const uint32_t last = row.first_event + row.num_events - 1;
  const int64_t range = image.ts[last] + image.dur[last] - image.ts[row.first_event] + 1;
  const int64_t whole = image.facts.end_ns - origin + 1;
  const auto bits = [](int64_t v) {
    return static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(v)));
  };
  uint32_t shift = std::max({kFinestShift, bits(range * kEventsPerBucket / row.num_events),
                             bits(whole) > 31 ? bits(whole) - 31 : 0});
  {
    LevelWriter writer(image, shift);
    for (uint32_t e = row.first_event; e <= last; ++e)
      writer.add(image.ts[e] - origin, image.dur[e], e);
    image.levels.push_back(writer.finish());
  }
  while (image.levels.back().num_buckets > 32) {
    const Level finer = image.levels.back();
    LevelWriter writer(image, ++shift);
    for (uint32_t i = 0; i < finer.num_buckets; ++i) {
      const Bucket b = image.buckets[finer.first_bucket + i];
      const auto covered =
          static_cast<int64_t>(b.covered * static_cast<float>(int64_t{1} << finer.shift));
      writer.merge(b.index >> 1, b.longest, b.events, std::min(image.dur[b.longest], covered),
                   covered);
    }
    image.levels.push_back(writer.finish());
  }
  row.num_levels = static_cast<uint32_t>(image.levels.size()) - row.first_level;
}

}  // namespace

void build_levels(TraceImage& image) {
  for (auto& row : image.rows) build_row(image, row);
}

}  // namespace triptych::insight

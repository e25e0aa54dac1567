#include "data/stream_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/random.h"

namespace triptych {
namespace {

/// Cuts `total` into whole parts in the proportion of `exact` (which sums to about `total`); what
/// rounding leaves over goes to the largest remainders, the earlier source first.
std::vector<int64_t> apportion(const std::vector<double>& exact, int64_t total) {
  std::vector<int64_t> parts;
  for (const double e : exact) parts.push_back(static_cast<int64_t>(std::floor(e)));
  std::vector<size_t> by_remainder(exact.size());
  std::iota(by_remainder.begin(), by_remainder.end(), size_t{0});
  std::stable_sort(by_remainder.begin(), by_remainder.end(), [&](size_t a, size_t b) {
    return exact[a] - std::floor(exact[a]) > exact[b] - std::floor(exact[b]);
  });
  auto left = total - std::accumulate(parts.begin(), parts.end(), int64_t{0});
  for (size_t i = 0; left > 0; i = (i + 1) % parts.size(), --left) ++parts[by_remainder[i]];
  return parts;
}

}  // namespace

StreamOrder::StreamOrder(std::vector<SourceShare> sources, uint64_t seed, bool shuffle)
    : sources_(std::move(sources)), seed_(seed), shuffle_(shuffle) {
  require<UsageError>(!sources_.empty(), "data: no source is given");
  double total_weight = 0.0, total = 0.0;
  for (size_t s = 0; s < sources_.size(); ++s) {
    const auto& source = sources_[s];
    const auto positive = [](double x) { return std::isfinite(x) && x > 0.0; };
    require<UsageError>(source.records > 0, "data: source ", s, " has no record");
    require<UsageError>(positive(source.weight) && positive(source.repeat), "data: source ", s,
                        " has weight ", source.weight, " and repeat ", source.repeat,
                        "; both must be positive");
    total_weight += source.weight;
    total += source.repeat * static_cast<double>(source.records);
  }
  require<UsageError>(total < 0x1p52, "data: an epoch of ", total, " samples is too long");

  const bool natural = std::all_of(sources_.begin(), sources_.end(),
                                   [](const SourceShare& s) { return s.weight == 1.0; });
  std::vector<double> exact;
  for (const auto& source : sources_) {
    exact.push_back(natural ? source.repeat * static_cast<double>(source.records)
                            : total * source.weight / total_weight);
  }
  const auto length = std::max<int64_t>(1, std::llround(total));
  begins_.push_back(0);
  for (const auto part : apportion(exact, length)) begins_.push_back(begins_.back() + part);
}

RecordRef StreamOrder::at(int64_t epoch, int64_t position) const {
  auto place = position;
  if (shuffle_) {
    place = static_cast<int64_t>(
        permute(static_cast<uint64_t>(position), static_cast<uint64_t>(epoch_length()),
                {seed_, RandomStream::kShuffle}, static_cast<uint64_t>(epoch)));
  }
  const auto next = std::upper_bound(begins_.begin(), begins_.end(), place);
  const auto s = static_cast<size_t>(next - begins_.begin()) - 1;
  const auto share = begins_[s + 1] - begins_[s];
  const auto records = sources_[s].records;

  // The source's own endless stream, round after round through its records.
  const auto own = epoch * share + (place - begins_[s]);
  auto record = own % records;
  if (shuffle_) {
    const auto round = static_cast<uint64_t>(own / records);
    record = static_cast<int64_t>(
        permute(static_cast<uint64_t>(record), static_cast<uint64_t>(records),
                {seed_, RandomStream::kDataMix}, round << 16 | static_cast<uint64_t>(s)));
  }
  return {static_cast<int32_t>(s), record};
}

}  // namespace triptych

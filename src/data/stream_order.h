#pragma once

// Which record is the n-th sample of a run. A pure function of (seed, epoch, position): no state,
// no list of indices in memory, so every rank and every resumed run agrees without talking.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace triptych {

struct SourceShare {
  int64_t records = 0;
  double weight = 1.0;  ///< see StreamOrder
  double repeat = 1.0;  ///< times that an epoch goes through the source
};

/// A record by source and place in its file.
struct RecordRef {
  int32_t source = 0;
  int64_t record = 0;
  bool operator==(const RecordRef&) const = default;
};

/// The order of one or several mixed sources.
///
/// All weights equal to 1: an epoch holds every record of every source `repeat` times. Otherwise an
/// epoch is as long, but source s has the share weight_s / sum(weight) of it; each source then goes
/// round at its own pace, over epochs, so that no record comes up a second time before all others
/// of its source have.
/// `shuffle`: the epoch is permuted by a keyed cipher; otherwise sources follow one another, each
/// in the order of its file.
class StreamOrder {
 public:
  /// @throws UsageError unless there is a source, every source has a record and every weight and
  ///   repeat is finite and positive.
  StreamOrder(std::vector<SourceShare> sources, uint64_t seed, bool shuffle);

  /// Samples in an epoch; the same for all epochs. At least 1.
  int64_t epoch_length() const { return begins_.back(); }

  /// Samples of source s in an epoch.
  int64_t epoch_share(int32_t source) const {
    const auto s = static_cast<size_t>(source);
    return begins_[s + 1] - begins_[s];
  }

  /// @param epoch from 0; @param position in [0, epoch_length())
  RecordRef at(int64_t epoch, int64_t position) const;

 private:
  std::vector<SourceShare> sources_;
  std::vector<int64_t> begins_;  // [sources + 1] where each source's part of an epoch begins
  uint64_t seed_;
  bool shuffle_;
};

}  // namespace triptych

#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "insight/scan.h"

namespace triptych::insight {

/// The arguments that views need while reading; all others stay in the file until asked for.
enum ArgKey : uint8_t {
  kCorrelation,
  kExternalId,
  kStream,
  kDevice,
  kCopyBytes,
  kBytesWritten,
  kGrid,
  kBlock,
  kRegisters,
  kSharedMemory,
  kOccupancy,
  kBandwidth,
  kCollectiveName,
  kInElements,
  kOutElements,
  kGroupSize,
  kDtype,
  kInSplit,
  kGroupName,
  kGroupDescription,
  kGroupRanks,
  kSrcRank,
  kDstRank,
  kSeq,
  kGroupTag,
  kWaitUs,
  kInputDims,
  kInputType,
  kConcrete,
  kSequence,
  kForwardThread,
  kAddr,
  kTotalAllocated,
  kTotalReserved,
  kDeviceType,
  kDeviceId,
  kMemoryCategory,
  kMemoryModule,
  kMetaName,
  kSortIndex,
  kNumArgKeys
};

/// The key's number, kNumArgKeys for one that no view needs.
ArgKey arg_key(std::string_view key);

/// The known arguments of one event, as they stand in the text.
class EventArgs {
 public:
  void put(std::string_view name, const RawValue& value) {
    const ArgKey key = arg_key(name);
    if (key < kNumArgKeys) {
      values_[key] = value;
      present_ |= uint64_t{1} << key;
    } else if (num_others_ < kMostOthers) {
      others_[num_others_++] = {name, value};
    }
  }
  bool has(ArgKey key) const { return (present_ >> key) & 1; }
  const RawValue& operator[](ArgKey key) const { return values_[key]; }
  /// The first few others: the series of a counter.
  std::span<const std::pair<std::string_view, RawValue>> others() const {
    return {others_.data(), num_others_};
  }

 private:
  static constexpr size_t kMostOthers = 8;
  std::array<RawValue, kNumArgKeys> values_;
  std::array<std::pair<std::string_view, RawValue>, kMostOthers> others_;
  uint64_t present_ = 0;
  size_t num_others_ = 0;
};

/// "[3, 4]" or "[[3, 4], []]": the product of the first list that has numbers; 1 for scalars, -1
/// when there is none.
int64_t elements_of_dims(std::string_view dims);

/// The first string of `["float", ""]`, or the text itself.
std::string_view first_item(std::string_view list);

/// "[8, 1, 1]".
void read_three(std::string_view list, int32_t (&out)[3]);

/// Bytes of one element of a dtype by any of its names ("Float", "c10::BFloat16", "float32"); 0
/// when unknown.
int dtype_bytes(std::string_view dtype);

}  // namespace triptych::insight

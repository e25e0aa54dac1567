#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "insight/trace.h"

namespace triptych::insight {

/// Every different string once. Id 0 is the empty string. Longer ones than kMostBytes are cut.
class StringTable {
 public:
  static constexpr size_t kMostBytes = 64 << 10;

  StringTable();
  StringId intern(std::string_view text);
  std::string_view operator[](StringId id) const {
    return {bytes_.data() + offsets_[id], offsets_[id + 1] - offsets_[id]};
  }
  size_t size() const { return offsets_.size() - 1; }
  const std::vector<uint64_t>& offsets() const { return offsets_; }  ///< size() + 1 of them
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  struct Slot {
    uint32_t hash = 0;
    StringId id = 0;  ///< 0: free (the empty string never enters the table)
  };
  void grow();

  std::vector<Slot> slots_;
  std::vector<uint64_t> offsets_;
  std::vector<char> bytes_;
};

}  // namespace triptych::insight

#pragma once

#include <cstdint>
#include <deque>
#include <vector>

namespace triptych {

/// A sample by its place in the epoch, and its length in tokens.
struct PackItem {
  int64_t position = 0;
  int32_t length = 0;
  bool operator==(const PackItem&) const = default;
};

/// Fills rows of at most `max_length` tokens from a bounded look-ahead: a row starts with the
/// oldest waiting sample, then takes the longest that still fits, again and again. So no sample
/// waits longer than the look-ahead, and the rows follow from order and lengths alone. Not for use
/// by several threads at once.
class Packer {
 public:
  /// @param lookahead  samples to choose from; 1 gives rows of one sample (no packing)
  Packer(int64_t max_length, int64_t lookahead);

  /// Whether a sample should be added before the next row is made.
  bool wants_more() const { return static_cast<int64_t>(waiting_.size()) < lookahead_; }
  bool empty() const { return waiting_.empty(); }

  /// @throws Error unless 0 < length <= max_length.
  void add(PackItem item);

  /// The next row, in the order in which its samples were chosen. @pre !empty()
  std::vector<PackItem> next_row();

  /// The waiting samples, oldest first: all of the state.
  const std::deque<PackItem>& waiting() const { return waiting_; }

 private:
  int64_t max_length_, lookahead_;
  std::deque<PackItem> waiting_;
};

}  // namespace triptych

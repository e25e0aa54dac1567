#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace triptych {

/// How the tokens of packed samples lie over context ranks (docs/spec/parallelism.md, 2.5 and 2.6).
///
/// Every sample is cut over the ring by itself, so that every rank has an equal share of every
/// sample's work: for causal attention into 2 R chunks, of which ring rank i holds the i-th and the
/// (2 R - 1 - i)-th; otherwise into R chunks. A ring part is what one ring rank holds of all
/// samples, sample by sample; it is then cut into U consecutive pieces over Ulysses, whatever
/// sample they belong to. Chunks may differ by one token and may be empty: nothing is padded.
///
/// Plain integers, the same on every rank.
class SequenceSplit {
 public:
  /// @param bounds  [samples + 1], from 0, not decreasing: tokens of the packed row.
  /// @param zigzag  for causal attention.
  SequenceSplit(std::span<const int64_t> bounds, int64_t ring, int64_t ulysses, bool zigzag);

  int64_t ring() const { return ring_; }
  int64_t ulysses() const { return ulysses_; }
  int64_t samples() const { return static_cast<int64_t>(bounds_.size()) - 1; }

  /// Tokens of a ring part, and of one piece of it.
  int64_t tokens(int64_t ring_rank) const;
  int64_t tokens(int64_t ring_rank, int64_t ulysses_rank) const;
  /// Tokens of all pieces of a ring part: what ranks exchange in Ulysses.
  std::vector<int64_t> piece_sizes(int64_t ring_rank) const;

  /// The packed row's token behind each local token of a piece, in local order.
  std::vector<int64_t> rows(int64_t ring_rank, int64_t ulysses_rank) const;

  /// A sample's tokens in a ring part: an early chunk, and with zigzag a late one behind it.
  struct Share {
    int64_t early = 0, late = 0;
  };
  Share share(int64_t ring_rank, int64_t sample) const;

 private:
  /// Where chunk `chunk` of a sample begins, in tokens of the packed row.
  int64_t chunk_begin(int64_t sample, int64_t chunk) const;
  int64_t piece_begin(int64_t ring_rank, int64_t ulysses_rank) const;

  std::vector<int64_t> bounds_;
  int64_t ring_, ulysses_;
  bool zigzag_;
  std::vector<int64_t> part_tokens_;  ///< of each ring part
};

}  // namespace triptych
